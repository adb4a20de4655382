"""How many passes at a time a machine bears: measured, because it depends on cores, memory and graph."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from .predict import Picture, Predictor


def best_streams(open_with: Callable[[int], Predictor], picture: Picture) -> int:
    """The number of streams with the least time an image.

    Args:
        open_with: streams -> a predictor; the least that were tried are those of one stream, the most one a core.
        picture: to measure with.
    """
    cores = os.cpu_count() or 1
    tried = sorted({1, max(1, cores // 4), max(1, cores // 2), cores})
    return min(tried, key=lambda streams: _seconds_an_image(open_with(streams), picture, streams))


def _seconds_an_image(predictor: Predictor, picture: Picture, streams: int) -> float:
    with ThreadPoolExecutor(streams) as pool:
        list(pool.map(predictor, [picture] * streams))
        began = time.perf_counter()
        list(pool.map(predictor, [picture] * 4 * streams))
        return (time.perf_counter() - began) / (4 * streams)
