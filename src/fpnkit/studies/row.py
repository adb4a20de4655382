"""Train and evaluate one row with one seed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data.annotated import AnnotatedImages, require_objects
from ..data.augment import AugmentConfig
from ..data.loader import make_training_loader
from ..data.preprocess import Preprocess
from ..device import choose_device
from ..errors import FpnkitError
from ..evaluation.evaluate import Stopped, collect
from ..evaluation.scores import score, score_proposals
from ..inference.torch_engine import find_in_images
from ..training.optimize import NotFiniteError, Optimizer
from ..weights.checkpoint import load_state, save_state
from .config import StudyConfig
from .tasks import Task

CHECKPOINT_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Outside:
    """Whom training and evaluation talk to.

    Attributes:
        on_step: told the number of new steps.
        on_images: told the number of new images.
        should_stop: asked after every step and before every image.
        worker_init: called with its number in each loading process.
    """

    on_step: Callable[[int], None]
    on_images: Callable[[int], None]
    should_stop: Callable[[], bool]
    worker_init: Callable[[int], None] | None = None


def train(
    task: Task, config: StudyConfig, data: AnnotatedImages, seed: int, state_path: Path, outside: Outside
) -> float:
    """Train for the study's budget, from the checkpoint at `state_path` if there is one.

    Returns:
        Seconds that the training took, over all its parts.
    Raises:
        Stopped: `should_stop` said so; the checkpoint is written.
        FpnkitError: the loss is not finite.
        DataError: an image cannot be read.
    """
    device = choose_device(config.device)
    optimizer = Optimizer(task.detector, config.optim, steps=config.steps, device=device)
    done, seconds = _resume(task, optimizer, state_path)
    outside.on_step(done)
    preprocess = Preprocess(config.preprocess())
    loader, sampler = make_training_loader(
        data,
        preprocess,
        AugmentConfig(crop=config.side, scale=config.scale),
        seed=seed,
        batch_size=config.optim.batch_size,
        workers=config.workers,
        worker_init=outside.worker_init,
    )
    sampler.numbers = range(done, config.steps)
    task.detector.train()
    began = saved = time.monotonic()
    with contextlib.closing(iter(loader)) as batches:
        for pixels, annotated, records in batches:
            done += 1
            batch, targets = preprocess.normalise(pixels.to(device)), annotated.to(device)
            try:
                optimizer.step(done - 1, [lambda: task.losses(batch, targets)])  # noqa: B023
            except NotFiniteError as error:
                images = ", ".join(str(record.path) for record in records)
                raise FpnkitError(
                    f"step {done}: the loss is not finite ({error}) on {images}: lower optim.lr"
                ) from None
            outside.on_step(1)
            now, stop = time.monotonic(), outside.should_stop()
            if now - saved > CHECKPOINT_SECONDS or done == config.steps or stop:
                seconds, began, saved = seconds + now - began, now, now
                save_state(state_path, _state(task, optimizer, done, seconds))
            if stop:
                raise Stopped
    return seconds


def evaluate(task: Task, config: StudyConfig, data: AnnotatedImages, outside: Outside) -> dict[str, float]:
    """The figures of the trained row, in 0..1.

    Raises:
        Stopped: `should_stop` said so.
    """
    require_objects(data)
    task.detector.eval()
    device = choose_device(config.device)
    detections, proposals = collect(
        find_in_images(task.find, config.preprocess(), device, config.optim.precision),
        data,
        workers=config.workers,
        on_images=outside.on_images,
        should_stop=outside.should_stop,
    )
    if task.kind == "rpn":
        return score_proposals(proposals or [], data)
    return score(detections, proposals, data).metrics


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
