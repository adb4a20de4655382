"""Joint training of a detector, with checkpoints that a stop or a crash leaves whole."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..cli.stop import StopRequest
from ..data.annotated import AnnotatedImages, Record, require_objects
from ..data.loader import DetectionDataset, make_loader, make_training_loader
from ..data.preprocess import Preprocess
from ..detectors import FasterRCNN
from ..device import choose_device, mixed_precision, peak_memory
from ..errors import CheckpointError, FpnkitError
from ..evaluation.evaluate import detect_all, score
from ..structures import ImageBatch, Targets
from ..weights.backbone import load_backbone_weights
from ..weights.checkpoint import ModelCard, fill, load_state, save_weights
from ..weights.fine_tune import Taken, take_over
from ..zoo import build, default_preprocess
from .distributed import World, synchronised
from .ema import Average
from .optimize import NotFiniteError, Optimizer
from .recipe import TrainConfig
from .run_folder import RunFolder, SilentFolder

FREE = ("device", "workers", "evaluate_every", "val_losses", "checkpoint_seconds", "keep")
"""What a resumed run may change: it has no influence on the weights."""


class Watcher(Protocol):
    """Who wants to know how training goes: the terminal, for one."""

    def on_step(self, step: int, total: int, losses: dict[str, float]) -> None: ...
    def on_evaluation(self, epoch: int, metrics: dict[str, float]) -> None: ...
    def on_evaluated_images(self, done: int, total: int) -> None: ...


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """What a step costs.

    Attributes:
        parameters, trainable: how many.
        seconds: of a step, loading included.
        memory: peak of the process, or of the GPU, in bytes.
        losses: of the last step.
    """

    parameters: int
    trainable: int
    seconds: float
    memory: int
    losses: dict[str, float]


class Trainer:
    """One training run in one folder.

    Args:
        config: the recipe.
        train_data, val_data: checked data sets of the same classes.
        out: the run's folder.
        pretrained: let timm download ImageNet weights for the backbone.
        backbone_weights: a classifier's file for the backbone instead.
        start_from: weights of fpnkit to fine-tune.
        from_scratch: the backbone has learnt nothing yet, so nothing of it stays frozen.
        world: the processes that train together; by default this one alone.
    Attributes:
        taken: what was kept of `start_from`.
    Raises:
        DataError: a data set without any object.
        CheckpointError: a file of weights cannot be used.
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
        start_from: Path | None = None,
        from_scratch: bool = False,
        world: World | None = None,
    ) -> None:
        require_objects(train_data)
        require_objects(val_data)
        torch.manual_seed(config.seed)
        self.config = config
        self.world = world or World()
        self.device = choose_device(config.device)
        self.val_data = val_data
        self.preprocess = Preprocess(default_preprocess(config.model))
        self.card = ModelCard(model=config.model, classes=train_data.classes, preprocess=self.preprocess.config)
        self.detector = build(config.model, len(train_data.classes), pretrained=pretrained)
        if backbone_weights is not None:
            load_backbone_weights(self.detector.backbone, backbone_weights)
        self.taken: Taken | None = take_over(self.detector, self.card.classes, start_from) if start_from else None
        self.from_scratch = from_scratch
        _hold_still(self.detector, "none" if from_scratch else config.freeze)
        if config.sync_norms and self.world.size > 1:
            self.detector = synchronised(self.detector, self.device)
        self.loader, self.sampler = make_training_loader(
            train_data,
            self.preprocess,
            config.augment,
            seed=config.seed,
            batch_size=config.optim.batch_size,
            workers=config.workers,
            rank=self.world.rank,
            processes=self.world.size,
        )
        self.optimizer = Optimizer(self.detector, config.optim, steps=self.total_steps, device=self.device)
        self.losses = self.world.share(self.detector)
        self.average = Average(self.detector, config.ema) if config.ema else None
        self.folder = RunFolder(out, keep=config.keep) if self.world.leads else SilentFolder(out)
        self.step, self.epoch, self.best_ap, self.stale = 0, 0, -1.0, 0
        self._saved = time.monotonic()
        self._stop = StopRequest()

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one epoch."""
        return self.sampler.per_epoch

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps_per_epoch * self.config.epochs

    @property
    def evaluated(self) -> FasterRCNN:
        """The network that is evaluated and kept: the average, where there is one."""
        return self.average.network if self.average else self.detector  # type: ignore[return-value]

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or patience is at its end."""
        return self.epoch == self.config.epochs or 0 < self.config.patience <= self.stale

    def run(self, watcher: Watcher) -> bool:
        """Train to the end, or until SIGINT or SIGTERM.

        Returns:
            True when finished; False when stopped, with a checkpoint left to resume from.
        Raises:
            DataError: an image cannot be read or is not as annotated.
            CheckpointError: the disk is full; the last checkpoint stays.
            FpnkitError: the loss is not finite; the step, the image, its boxes and the terms are named.
        """
        self.folder.open(dataclasses.asdict(self.config), self.card.classes, step=self.step, epoch=self.epoch)
        if self.step and self.world.leads:  # a kill may have come between the state and these
            save_weights(self.folder.last, self.evaluated, self.card)
        self.sampler.numbers = range(self.step, self.total_steps)
        with self._stop, contextlib.closing(iter(self.loader)) as batches:
            while not self.finished and not self.world.any(self._stop.asked):
                self._epoch(batches, watcher)
        if not self.finished:
            self._save()
            self.folder.draw_curves()
        self.folder.close()
        return self.finished

    def rehearse(self, steps: int = 2) -> Rehearsal:
        """Run a batch or two and forget it: what does not work, or is too large, shows now. Nothing is written."""
        self.detector.train()
        batches, began, losses = iter(self.loader), time.perf_counter(), {}
        for step in range(steps):
            began = time.perf_counter()
            losses = self._train_step(*next(batches, None) or next(iter(self.loader)))
            self.step = step
        parameters = list(self.detector.parameters())
        return Rehearsal(
            parameters=sum(each.numel() for each in parameters),
            trainable=sum(each.numel() for each in parameters if each.requires_grad),
            seconds=time.perf_counter() - began,
            memory=peak_memory(self.device),
            losses=losses,
        )

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
            if self.average:
                fill(self.evaluated, state["average"], path)
            self.optimizer.inner.load_state_dict(state["optimizer"])
            self.step, self.best_ap, self.epoch = state["step"], state["best_ap"], state["epoch"]
            self.stale = state["stale"]
            torch.set_rng_state(state["random"])
            if self.device.type == "cuda" and state["random_cuda"]:
                torch.cuda.set_rng_state_all(state["random_cuda"])
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"{path}: damaged training state: {type(error).__name__}: {error}") from None

    def _epoch(self, batches: Iterator[tuple[ImageBatch, Targets, list[Record]]], watcher: Watcher) -> None:
        self.detector.train()
        epoch = self.epoch + 1
        for batch, targets, records in islice(batches, epoch * self.steps_per_epoch - self.step):
            if self.step == 0:
                self.folder.draw_batch(batch, targets, self.card.classes)
            losses = self._train_step(batch, targets, records)
            self.step += 1
            if self.average:
                self.average.follow(self.detector, self.step)
            self.folder.add_losses(self.step, losses, self.optimizer.learning_rate(self.step))
            watcher.on_step(self.step, self.total_steps, losses)
            if self.world.any(self._stop.asked):
                return
            if time.monotonic() - self._saved >= self.config.checkpoint_seconds:
                self._save()
                self.folder.draw_curves()
        evaluates = epoch % self.config.evaluate_every == 0 or epoch == self.config.epochs
        if evaluates:
            self._save()
            try:
                self._evaluate(epoch, watcher)
            except _StoppedEvaluating:
                return
        self.epoch = epoch
        if evaluates:
            self._save()
            self.folder.draw_curves()

    def _train_step(self, batch: ImageBatch, targets: Targets, records: list[Record]) -> dict[str, float]:
        parts = self.config.optim.accumulate
        size = -(-len(records) // parts)
        slices = [slice(start, start + size) for start in range(0, len(records), size)]
        try:
            parts_losses = [self._losses_of(batch, targets, part, self.losses) for part in slices]
            return self.world.mean(self.optimizer.step(self.step, parts_losses))
        except NotFiniteError as error:
            culprit = self._culprit(batch, targets, records)
            raise FpnkitError(
                f"step {self.step + 1}: the loss is not finite ({error}) on {culprit}; lower --lr, or look at the boxes"
            ) from None

    def _losses_of(
        self, batch: ImageBatch, targets: Targets, part: slice, run: Callable[..., dict[str, Tensor]]
    ) -> Callable[[], dict[str, Tensor]]:
        """What computes the losses of some images of a batch."""

        def losses() -> dict[str, Tensor]:
            return run(self.preprocess.normalise(batch[part].to(self.device)), targets[part].to(self.device))

        return losses

    def _culprit(self, batch: ImageBatch, targets: Targets, records: list[Record]) -> str:
        """The image whose loss is not finite, its boxes in the batch's pixels, and the terms; all when it is no one."""
        for index, record in enumerate(records):
            with torch.no_grad(), mixed_precision(self.device, self.config.optim.precision):
                losses = self._losses_of(batch, targets, slice(index, index + 1), self.detector.losses)()
            bad = [name for name, value in losses.items() if not torch.isfinite(value)]
            if bad:
                found = targets.boxes_xyxy[index][targets.valid[index]]
                boxes = [[round(side, 1) for side in box] for box in found.tolist()]
                return f"{record.path}: {', '.join(bad)}, boxes {boxes[:5]}{' ...' * (len(boxes) > 5)}"
        return ", ".join(str(record.path) for record in records)

    def _evaluate(self, epoch: int, watcher: Watcher) -> None:
        mine = dataclasses.replace(self.val_data, records=self.val_data.records[self.world.rank :: self.world.size])
        total, done = len(mine.records), 0

        def count(images: int) -> None:
            nonlocal done
            if self._stop.asked:
                raise _StoppedEvaluating
            done += images
            watcher.on_evaluated_images(done, total)

        found: Any = None
        with contextlib.suppress(_StoppedEvaluating):
            found = detect_all(
                self.evaluated,
                mine,
                self.preprocess,
                device=self.device,
                precision=self.config.optim.precision,
                workers=self.config.workers,
                on_batch=count,
            )
        parts = self.world.gather(found)
        if any(part is None for part in parts):
            raise _StoppedEvaluating
        detections, proposals = (list(chain.from_iterable(part[kind] for part in parts)) for kind in (0, 1))
        result = score(detections, proposals, self.val_data)
        metrics = result.metrics | self._validation_losses()
        self.folder.add_metrics(self.step, epoch, metrics)
        self.folder.draw_evaluation(result, self.val_data)
        watcher.on_evaluation(epoch, metrics)
        self.stale += 1
        if metrics["AP"] > self.best_ap:
            self.best_ap, self.stale = metrics["AP"], 0
            if self.world.leads:
                save_weights(self.folder.best, self.evaluated, self.card)

    @torch.no_grad()
    def _validation_losses(self) -> dict[str, float]:
        """Means over the first validation images; the samples are drawn alike each time, and nothing else moves."""
        some = self.val_data.records[: self.config.val_losses]
        data = DetectionDataset(dataclasses.replace(self.val_data, records=some), self.preprocess)
        sums: dict[str, float] = {}
        loader, _ = make_loader(data, batch_size=1, workers=0, shuffle=False)
        network = self.evaluated
        was_training = network.training
        network.eval()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for batch, targets, _ in loader if some else ():
                with mixed_precision(self.device, self.config.optim.precision):
                    images = self.preprocess.normalise(batch.to(self.device))
                    losses = network.losses(images, targets.to(self.device))
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + float(value) / len(some)
        network.train(was_training)
        return {f"loss/{name}": value for name, value in sums.items()}

    def _save(self) -> None:
        if not self.world.leads:
            return
        state = {
            "recipe": self._recipe(),
            "detector": self.detector.state_dict(),
            "optimizer": self.optimizer.inner.state_dict(),
            "step": self.step,
            "epoch": self.epoch,
            "best_ap": self.best_ap,
            "stale": self.stale,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }
        if self.average:
            state["average"] = self.average.network.state_dict()
        self.folder.save_state(self.step, state)
        save_weights(self.folder.last, self.evaluated, self.card)
        self._saved = time.monotonic()

    def _recipe(self) -> dict[str, Any]:
        """What must agree between a checkpoint and the run that resumes it, in plain lists and values."""
        recipe = _plain(dataclasses.asdict(self.config))
        for free in FREE:
            recipe.pop(free)
        return {**recipe, "classes": list(self.card.classes), "from_scratch": self.from_scratch}

    def _require_recipe(self, made_with: dict[str, Any]) -> None:
        for name, value in _flat(self._recipe()).items():
            there = _flat(made_with).get(name, value)
            if there != value:
                raise CheckpointError(
                    f"{self.folder.state}: made with {name} {there!r}, not {value!r}: resume with the same arguments"
                )


class _StoppedEvaluating(Exception):
    pass


def _hold_still(detector: FasterRCNN, what: str) -> None:
    """`model` leaves everything as the model was built."""
    if what == "none":
        detector.backbone.thaw()
    elif what == "backbone":
        detector.backbone.freeze([detector.backbone.body])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _flat(recipe: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Names with dots -> values."""
    flat: dict[str, Any] = {}
    for name, value in recipe.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
