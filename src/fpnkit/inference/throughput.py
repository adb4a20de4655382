"""How many images at a time are fastest: measured, because it depends on cores, memory and model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

from .predictor import Picture, Predictor

BATCHES = (1, 4, 16)


@dataclass(frozen=True)
class BatchPlan:
    """How many images are computed together.

    Attributes:
        streams: passes at a time.
        batch: images a pass.
    """

    streams: int = 1
    batch: int = 1


def choose_batch_plan(
    open_with: Callable[[int], Predictor], picture: Picture, *, streams: int | None = None, batch: int | None = None
) -> tuple[Predictor, BatchPlan]:
    """The predictor with the least time an image, and how to use it.

    First the streams are chosen, from one to one a core, then the batch, as long as a larger one is faster.

    Args:
        open_with: streams -> a predictor.
        picture: to measure with.
        streams, batch: fixed when given. A PyTorch network has one stream.
    """
    open_once, cores = cache(open_with), os.cpu_count() or 1
    able = [streams] if streams else sorted({1, max(1, cores // 4), max(1, cores // 2), cores})
    if open_once(able[0]).engine.name == "torch":
        able = able[:1]
    batches = (batch,) if batch else BATCHES
    plan = fastest_plan(able, batches, lambda each: _seconds_an_image(open_once(each.streams), picture, each))
    return open_once(plan.streams), plan


def fastest_plan(streams: Sequence[int], batches: Sequence[int], seconds: Callable[[BatchPlan], float]) -> BatchPlan:
    """The plan with the least time an image among the streams, then with larger batches while each saves 5 %.

    Args:
        streams, batches: what may be chosen, batches ascending.
        seconds: plan -> seconds an image.
    """
    times = {plan: seconds(plan) for plan in (BatchPlan(each, batches[0]) for each in streams)}
    best = min(times, key=times.__getitem__)
    least = times[best]
    for larger in batches[1:]:
        plan = BatchPlan(best.streams, larger)
        if (took := seconds(plan)) > 0.95 * least:
            break
        best, least = plan, took
    return best


def _seconds_an_image(predictor: Predictor, picture: Picture, plan: BatchPlan) -> float:
    pictures, calls = [picture] * plan.batch, max(plan.streams, 4 * plan.streams // plan.batch)
    with ThreadPoolExecutor(plan.streams) as pool:
        list(pool.map(predictor.batch, [pictures] * plan.streams))
        began = time.perf_counter()
        list(pool.map(predictor.batch, [pictures] * calls))
        return (time.perf_counter() - began) / (calls * plan.batch)
