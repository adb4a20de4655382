"""What a model costs on this machine: milliseconds by part, images a second, memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.preprocess import Preprocess, PreprocessConfig
from ..detectors.pyramid_detector import image_size
from ..device import mixed_precision, peak_memory
from ..structures import ImageBatch
from .engines import Engine, TorchEngine


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
        size: height and width of the image, and `network_size` after resizing.
        network_size: see `size`.
        parts: milliseconds of one image, by part; `whole` from pixels to boxes.
        images_a_second: with `streams` images at a time.
        streams: see `images_a_second`.
        memory: peak of the process in MiB.
        machine: CPU, cores, torch.
    """

    engine: str
    size: tuple[int, int]
    network_size: tuple[int, int]
    parts: dict[str, Cost]
    images_a_second: float
    streams: int
    memory: float
    machine: dict[str, str]


def bench(
    engine: Engine,
    config: PreprocessConfig,
    image: Tensor,
    *,
    rounds: int = 20,
    streams: int = 1,
    on_round: Callable[[], None] = lambda: None,
) -> Bench:
    """Measure.

    Args:
        engine: any.
        config: how images are prepared.
        image: (3, H, W) uint8.
        rounds: after three that warm up; the parts of one round are measured in turn.
        streams: images at a time, for the images a second.
        on_round: told of each finished round.
    """
    times: dict[str, list[float]] = {}
    for number in range(rounds + 3):
        passed = {"whole": _seconds(lambda: engine.detect([image], config))}
        began = time.perf_counter()
        batch = Preprocess(config)([image])
        passed["resizing"] = time.perf_counter() - began
        if isinstance(engine, TorchEngine):
            passed |= _parts(engine, batch)
        for name, seconds in passed.items():
            if number >= 3:
                times.setdefault(name, []).append(1000 * seconds)
        on_round()
    costs = {name: Cost(min(each), statistics.median(each), max(each)) for name, each in times.items()}
    return Bench(
        engine=engine.name,
        size=(image.shape[1], image.shape[2]),
        network_size=Preprocess(config).resized(image.shape[1], image.shape[2]),
        parts=costs,
        images_a_second=_images_a_second(engine, config, image, streams, rounds),
        streams=streams,
        memory=peak_memory(torch.device("cpu")) / 2**20,
        machine=machine(),
    )


@torch.inference_mode()
def _parts(engine: TorchEngine, batch: ImageBatch) -> dict[str, float]:
    """Seconds of backbone, pyramid, RPN head, proposals and RoI head."""
    detector, passed = engine.detector, {}
    batch = batch.to(engine.device)
    with mixed_precision(engine.device, engine.precision):
        began = time.perf_counter()

        def lap(name: str) -> None:
            nonlocal began
            if engine.device.type == "cuda":
                torch.cuda.synchronize()
            passed[name], began = time.perf_counter() - began, time.perf_counter()

        features = detector.features(batch.images)
        lap("backbone and pyramid")
        logits, deltas = detector.rpn(features)
        lap("RPN head")
        grids = detector.rpn.anchor_grids(features, image_size(batch.images))
        proposals = detector.rpn.propose(logits, deltas, grids, batch.sizes)
        lap("proposals")
        detector.roi.detect(features, proposals, batch.sizes)
        lap("RoI head and suppression")
    return passed


def _images_a_second(engine: Engine, config: PreprocessConfig, image: Tensor, streams: int, rounds: int) -> float:
    with ThreadPoolExecutor(streams + 1) as pool:
        seconds = _seconds(lambda: list(pool.map(lambda _: engine.detect([image], config), range(rounds * streams))))
    return rounds * streams / seconds


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
