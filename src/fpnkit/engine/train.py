"""Joint training of a detector, with checkpoints that a stop or a crash leaves whole."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from ..data.annotated import AnnotatedImages, Record, require_objects
from ..data.loader import AugmentConfig, make_training_loader
from ..data.preprocess import Preprocess
from ..errors import CheckpointError, ConfigError
from ..structures import ImageBatch, Targets
from ..zoo import build, default_preprocess
from .backbone_weights import load_backbone_weights
from .checkpoint import ModelCard, fill, load_state, save_state, save_weights
from .device import choose_device
from .evaluate import evaluate
from .optimize import Optimizer, OptimizerConfig
from .run_folder import RunFolder
from .stop import StopRequest

CHECKPOINT_SECONDS = 300
"""Between epochs, a training state is saved at least this often."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(OptimizerConfig):
    """The recipe.

    Attributes:
        model: name in the zoo.
        epochs: passes over the data.
        workers: loading processes.
        evaluate_every: epochs between evaluations; the last epoch is always evaluated.
        seed: of weights, order, augmentation and sampling.
        device: `auto`, `cpu`, `cuda`.
        augment: see `AugmentConfig`.
    """

    model: str = "faster_rcnn_r50_fpn"
    epochs: int = 12
    workers: int = 1
    evaluate_every: int = 1
    seed: int = 0
    device: str = "auto"
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.workers < 0:
            raise ConfigError(f"workers must be 0 or more, got {self.workers}")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must lie in 0..2**32 - 1, got {self.seed}")
        default_preprocess(self.model)


class Watcher(Protocol):
    """Who wants to know how training goes: the terminal, for one."""

    def on_step(self, step: int, total: int, losses: dict[str, float]) -> None: ...
    def on_evaluation(self, epoch: int, metrics: dict[str, float]) -> None: ...
    def on_evaluated_images(self, done: int, total: int) -> None: ...


class Trainer:
    """One training run in one folder.

    Args:
        config: the recipe.
        train_data, val_data: checked data sets of the same classes.
        out: the run's folder.
        pretrained: let timm download ImageNet weights for the backbone.
        backbone_weights: a classifier's file for the backbone instead.
        from_scratch: the backbone has learnt nothing yet, so nothing of it stays frozen.
    Raises:
        DataError: a data set without any object.
        CheckpointError: the file for the backbone cannot be used.
    """

    def __init__(
        self,
        config: TrainConfig,
        train_data: AnnotatedImages,
        val_data: AnnotatedImages,
        out: Path,
        *,
        pretrained: bool = False,
        backbone_weights: Path | None = None,
        from_scratch: bool = False,
    ) -> None:
        require_objects(train_data)
        require_objects(val_data)
        torch.manual_seed(config.seed)
        self.config = config
        self.device = choose_device(config.device)
        self.val_data = val_data
        self.preprocess = Preprocess(default_preprocess(config.model))
        self.card = ModelCard(model=config.model, classes=train_data.classes, preprocess=self.preprocess.config)
        self.detector = build(config.model, len(train_data.classes), pretrained=pretrained)
        if backbone_weights is not None:
            load_backbone_weights(self.detector.backbone, backbone_weights)
        self.from_scratch = from_scratch
        if from_scratch:
            self.detector.backbone.thaw()
        self.loader, self.sampler = make_training_loader(
            train_data,
            self.preprocess,
            config.augment,
            seed=config.seed,
            batch_size=config.batch_size,
            workers=config.workers,
        )
        self.optimizer = Optimizer(self.detector, config, steps=self.total_steps, device=self.device)
        self.folder = RunFolder(out)
        self.step, self.epoch, self.best_ap = 0, 0, -1.0
        self._stop = StopRequest()

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one epoch."""
        records, size = len(self.loader.dataset), self.config.batch_size  # type: ignore[arg-type]
        return max(1, records // size)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps_per_epoch * self.config.epochs

    def run(self, watcher: Watcher) -> bool:
        """Train to the end, or until SIGINT or SIGTERM.

        Returns:
            True when finished; False when stopped, with a checkpoint left to resume from.
        Raises:
            DataError: an image cannot be read or is not as annotated.
            CheckpointError: the disk is full; the last checkpoint stays.
            FpnkitError: the loss is not finite; the step and its images are named.
        """
        self.folder.open(dataclasses.asdict(self.config), self.card.classes, step=self.step, epoch=self.epoch)
        with self._stop:
            while self.epoch < self.config.epochs and not self._stop.asked:
                self._epoch(watcher)
        self.folder.close()
        return self.epoch == self.config.epochs

    def resume(self) -> None:
        """Go on from the folder's last checkpoint.

        Raises:
            CheckpointError: there is none, it is damaged, or of another model or recipe.
        """
        path = self.folder.state
        state = load_state(path)
        try:
            self._require_recipe(state["recipe"])
            fill(self.detector, state["detector"], path)
            self.optimizer.adam.load_state_dict(state["optimizer"])
            self.step, self.best_ap = state["step"], state["best_ap"]
            self.epoch = state.get("epoch", self.step // self.steps_per_epoch)
            torch.set_rng_state(state["random"])
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"{path}: damaged training state: {type(error).__name__}: {error}") from None

    def _epoch(self, watcher: Watcher) -> None:
        self.sampler.epoch = self.epoch
        self.sampler.start = (self.step - self.epoch * self.steps_per_epoch) * self.config.batch_size
        self.detector.train()
        saved = time.monotonic()
        for batch, targets, records in self.loader:
            losses = self._train_step(batch, targets, records)
            self.step += 1
            self.folder.add_losses(self.step, losses, self.optimizer.learning_rate(self.step))
            watcher.on_step(self.step, self.total_steps, losses)
            if self._stop.asked or time.monotonic() - saved > CHECKPOINT_SECONDS:
                self._save()
                self.folder.draw_curves()
                saved = time.monotonic()
            if self._stop.asked:
                return
        epoch = self.epoch + 1
        if epoch % self.config.evaluate_every == 0 or epoch == self.config.epochs:
            self._save()
            try:
                self._evaluate(epoch, watcher)
            except _StoppedEvaluating:
                return
        self.epoch = epoch
        self._save()
        self.folder.draw_curves()

    def _train_step(self, batch: ImageBatch, targets: Targets, records: list[Record]) -> dict[str, float]:
        batch, targets = batch.to(self.device), targets.to(self.device)
        batch = dataclasses.replace(batch, images=batch.images.contiguous(memory_format=torch.channels_last))
        images = ", ".join(str(record.path) for record in records)
        return self.optimizer.step(self.step, lambda: self.detector.losses(batch, targets), what=images)

    def _evaluate(self, epoch: int, watcher: Watcher) -> None:
        total, done = len(self.val_data.records), 0

        def count(images: int) -> None:
            nonlocal done
            if self._stop.asked:
                raise _StoppedEvaluating
            done += images
            watcher.on_evaluated_images(done, total)

        result = evaluate(
            self.detector,
            self.val_data,
            self.preprocess,
            device=self.device,
            precision=self.config.precision,
            workers=self.config.workers,
            on_batch=count,
        )
        self.folder.add_metrics(self.step, epoch, result.metrics)
        watcher.on_evaluation(epoch, result.metrics)
        if result.metrics["AP"] > self.best_ap:
            self.best_ap = result.metrics["AP"]
            save_weights(self.folder.best, self.detector, self.card)

    def _save(self) -> None:
        save_weights(self.folder.last, self.detector, self.card)
        state = {
            "recipe": self._recipe(),
            "detector": self.detector.state_dict(),
            "optimizer": self.optimizer.adam.state_dict(),
            "step": self.step,
            "epoch": self.epoch,
            "best_ap": self.best_ap,
            "random": torch.get_rng_state(),
        }
        save_state(self.folder.state, state)

    def _recipe(self) -> dict[str, Any]:
        """What must agree between a checkpoint and the run that resumes it; where it runs may differ."""
        recipe = dataclasses.asdict(self.config)
        for free in ("device", "workers", "evaluate_every"):
            recipe.pop(free)
        recipe["augment"]["scale"] = list(recipe["augment"]["scale"])
        return {**recipe, "classes": list(self.card.classes), "from_scratch": self.from_scratch}

    def _require_recipe(self, made_with: dict[str, Any]) -> None:
        for name, value in self._recipe().items():
            there = made_with.get(name, value)
            if there != value:
                raise CheckpointError(
                    f"{self.folder.state}: made with {name} {there!r}, not {value!r}: resume with the same arguments"
                )


class _StoppedEvaluating(Exception):
    pass
