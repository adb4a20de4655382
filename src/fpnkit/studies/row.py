"""Train and evaluate one row with one seed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..cli.stop import StopRequest
from ..data.annotated import AnnotatedImages, require_objects
from ..data.augment import AugmentConfig
from ..data.loader import make_training_loader
from ..data.preprocess import Preprocess
from ..device import choose_device
from ..errors import FpnkitError
from ..evaluation.evaluate import METRICS, collect, score, score_proposals
from ..training.optimize import NotFiniteError, Optimizer
from ..weights.checkpoint import load_state, save_state
from .config import StudyConfig
from .tasks import Task

CHECKPOINT_SECONDS = 60


class Stopped(Exception):
    """SIGINT or SIGTERM came; the checkpoint is written."""


@dataclass(frozen=True)
class Progress:
    """Who wants to know: called with the number of new steps, or of new images."""

    on_step: Callable[[int], None]
    on_image: Callable[[int], None]


def train(
    task: Task, config: StudyConfig, data: AnnotatedImages, seed: int, state_path: Path, progress: Progress
) -> float:
    """Train for the study's budget, from the checkpoint at `state_path` if there is one.

    Returns:
        Seconds that the training took, over all its parts.
    Raises:
        Stopped: SIGINT or SIGTERM came.
        FpnkitError: the loss is not finite.
        DataError: an image cannot be read.
    """
    device = choose_device(config.device)
    optimizer = Optimizer(task.detector, config, steps=config.steps, device=device)
    done, seconds = _resume(task, optimizer, state_path)
    progress.on_step(done)
    preprocess = Preprocess(config.preprocess())
    loader, sampler = make_training_loader(
        data,
        preprocess,
        AugmentConfig(crop=config.side, scale=config.scale),
        seed=seed,
        batch_size=config.batch_size,
        workers=config.workers,
    )
    sampler.numbers = range(done, config.steps)
    task.detector.train()
    began = saved = time.monotonic()
    with StopRequest() as stop, contextlib.closing(iter(loader)) as batches:
        for batch, targets, records in batches:
            done += 1
            batch, targets = preprocess.normalise(batch.to(device)), targets.to(device)
            try:
                optimizer.step(done - 1, [lambda: task.losses(batch, targets)])  # noqa: B023
            except NotFiniteError as error:
                images = ", ".join(str(record.path) for record in records)
                raise FpnkitError(f"step {done}: the loss is not finite ({error}) on {images}: lower --lr") from None
            progress.on_step(1)
            now = time.monotonic()
            if now - saved > CHECKPOINT_SECONDS or done == config.steps or stop.asked:
                seconds, began, saved = seconds + now - began, now, now
                save_state(state_path, _state(task, optimizer, done, seconds))
            if stop.asked:
                raise Stopped
    return seconds


def evaluate(task: Task, config: StudyConfig, data: AnnotatedImages, progress: Progress) -> dict[str, float]:
    """The figures of the trained row, in 0..1."""
    require_objects(data)
    task.detector.eval()
    detections, proposals = collect(
        task.find,
        data,
        Preprocess(config.preprocess()),
        device=choose_device(config.device),
        precision=config.precision,
        workers=config.workers,
        on_batch=progress.on_image,
    )
    if task.kind == "rpn":
        return score_proposals(proposals, data)
    metrics = score(detections, proposals, data).metrics
    return {name: metrics[name] for name in METRICS} if task.kind == "fast_rcnn" else metrics


def _resume(task: Task, optimizer: Optimizer, state_path: Path) -> tuple[int, float]:
    """Steps and seconds that are done."""
    if not state_path.exists():
        return 0, 0.0
    state = load_state(state_path)
    task.detector.load_state_dict(state["detector"])
    optimizer.inner.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    return state["step"], state["seconds"]


def _state(task: Task, optimizer: Optimizer, step: int, seconds: float) -> dict[str, Any]:
    return {
        "detector": task.detector.state_dict(),
        "optimizer": optimizer.inner.state_dict(),
        "random": torch.get_rng_state(),
        "step": step,
        "seconds": seconds,
    }
