"""How many images at a time a machine bears: measured, because it depends on cores, memory and model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

from .predict import Picture, Predictor

BATCHES = (1, 4, 16)


@dataclass(frozen=True)
class Way:
    """How a folder is looked at.

    Attributes:
        streams: passes at a time.
        batch: images a pass.
    """

    streams: int = 1
    batch: int = 1


def best_way(
    open_with: Callable[[int], Predictor], picture: Picture, *, streams: int | None = None, batch: int | None = None
) -> tuple[Predictor, Way]:
    """The predictor with the least time an image, and how to use it.

    First the streams are chosen, from one to one a core, then the batch, as long as a larger one is faster.

    Args:
        open_with: streams -> a predictor.
        picture: to measure with.
        streams, batch: fixed when given. A PyTorch network has one stream.
    """
    open_once, cores = cache(open_with), os.cpu_count() or 1

    def seconds(way: Way) -> float:
        return _seconds_an_image(open_once(way.streams), picture, way)

    able = [streams] if streams else sorted({1, max(1, cores // 4), max(1, cores // 2), cores})
    if open_once(able[0]).engine.name == "torch":
        able = able[:1]
    times = {way: seconds(way) for way in (Way(each, batch or 1) for each in able)}
    best = min(times, key=times.__getitem__)
    least = times[best]
    for larger in BATCHES[1:] if batch is None else ():
        way = Way(best.streams, larger)
        if (took := seconds(way)) > 0.95 * least:
            break
        best, least = way, took
    return open_once(best.streams), best


def _seconds_an_image(predictor: Predictor, picture: Picture, way: Way) -> float:
    pictures, calls = [picture] * way.batch, max(way.streams, 4 * way.streams // way.batch)
    with ThreadPoolExecutor(way.streams) as pool:
        list(pool.map(predictor.batch, [pictures] * way.streams))
        began = time.perf_counter()
        list(pool.map(predictor.batch, [pictures] * calls))
        return (time.perf_counter() - began) / (calls * way.batch)
