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
    open_once = cache(open_with)
    cores = os.cpu_count() or 1
    several = sorted({1, max(1, cores // 4), max(1, cores // 2), cores})
    if open_once(streams or 1).engine.name == "torch":
        several = [1]
    tried = [Way(each, batch or 1) for each in ([streams] if streams else several)]
    times = {way: _seconds_an_image(open_once(way.streams), picture, way) for way in tried} if len(tried) > 1 else {}
    best = min(times, key=times.__getitem__) if times else tried[0]
    if batch is None:
        best = _larger_batch(open_once(best.streams), picture, best)
    return open_once(best.streams), best


def _larger_batch(predictor: Predictor, picture: Picture, way: Way) -> Way:
    least = _seconds_an_image(predictor, picture, way)
    for batch in BATCHES[1:]:
        larger = Way(way.streams, batch)
        seconds = _seconds_an_image(predictor, picture, larger)
        if seconds > 0.95 * least:
            break
        way, least = larger, seconds
    return way


def _seconds_an_image(predictor: Predictor, picture: Picture, way: Way) -> float:
    pictures, calls = [picture] * way.batch, max(way.streams, 4 * way.streams // way.batch)
    with ThreadPoolExecutor(way.streams) as pool:
        list(pool.map(predictor.batch, [pictures] * way.streams))
        began = time.perf_counter()
        list(pool.map(predictor.batch, [pictures] * calls))
        return (time.perf_counter() - began) / (calls * way.batch)
