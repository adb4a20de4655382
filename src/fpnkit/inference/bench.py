"""What a model costs on this machine: milliseconds by part, images a second, memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..data.pixels import PreprocessConfig, SizeHW, resize
from ..device import machine, peak_process_memory
from .engines import Engine


@dataclass(frozen=True)
class Cost:
    """Milliseconds of something, over rounds."""

    minimum: float
    median: float
    maximum: float


@dataclass(frozen=True)
class Bench:
    """What a model costs here.

    Attributes:
        engine: that ran it.
        size_hw: height and width of the image, and `network_hw` after resizing.
        network_hw: see `size_hw`.
        parts: milliseconds of one image, by part; `whole` from pixels to boxes.
        images_a_second: with `streams` images at a time.
        streams: see `images_a_second`.
        memory: peak of the process in MiB; None where the system does not tell.
        machine: CPU, cores, torch.
    """

    engine: str
    size_hw: SizeHW
    network_hw: SizeHW
    parts: dict[str, Cost]
    images_a_second: float
    streams: int
    memory: float | None
    machine: dict[str, str]


def bench(
    engine: Engine,
    config: PreprocessConfig,
    image: np.ndarray,
    *,
    rounds: int = 20,
    streams: int = 1,
    on_round: Callable[[], None] = lambda: None,
) -> Bench:
    """Measure.

    Args:
        engine: any.
        config: how images are prepared.
        image: (H, W, 3) uint8.
        rounds: after three that warm up; the parts of one round are measured in turn.
        streams: images at a time, for the images a second.
        on_round: told of each finished round.
    """
    times: dict[str, list[float]] = {}
    network_hw = config.resized_hw(*image.shape[:2])
    for number in range(rounds + 3):
        passed = {"whole": _seconds(lambda: engine.detect([image], config))}
        passed["resizing"] = _seconds(lambda: resize(image, network_hw, antialias=config.antialias))
        passed |= engine.time_steps([image], config)
        for name, seconds in passed.items():
            if number >= 3:
                times.setdefault(name, []).append(1000 * seconds)
        on_round()
    costs = {name: Cost(min(each), statistics.median(each), max(each)) for name, each in times.items()}
    peak = peak_process_memory()
    return Bench(
        engine=engine.name,
        size_hw=(image.shape[0], image.shape[1]),
        network_hw=network_hw,
        parts=costs,
        images_a_second=_images_a_second(engine, config, image, streams, rounds),
        streams=streams,
        memory=None if peak is None else peak / 2**20,
        machine=machine(),
    )


def _images_a_second(engine: Engine, config: PreprocessConfig, image: np.ndarray, streams: int, rounds: int) -> float:
    with ThreadPoolExecutor(streams + 1) as pool:
        seconds = _seconds(lambda: list(pool.map(lambda _: engine.detect([image], config), range(rounds * streams))))
    return rounds * streams / seconds


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
