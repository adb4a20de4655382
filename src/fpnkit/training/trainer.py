"""Training of any detector, with checkpoints that a stop or a crash leaves whole."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones import Backbone
from ..data.annotated import AnnotatedImages, Record, require_objects
from ..data.loader import BatchLoader, BatchSampler, make_training_loader
from ..data.preprocess import Preprocess
from ..detectors import Detector
from ..device import choose_device, mixed_precision, peak_memory
from ..errors import CheckpointError, ConfigError, FpnkitError
from ..settings import as_plain
from ..structures import PixelBatch, Targets
from ..weights.checkpoint import ModelCard, fill, load_state, save_weights
from .distributed import Distributed, synchronised
from .ema import EMA
from .optimize import NotFiniteError, Optimizer
from .plan import EVALUATED_IMAGE, Length, default_warmup, ema_decay, plan_for_time, plan_length
from .recipe import TrainConfig
from .resume import FORMAT, circumstances, description, differences, require_resumable
from .run_folder import RunFolder, SilentFolder
from .validation import Validation
from .watcher import Watcher

ESTIMATE_AFTER = 10
"""Steps after which the time that is left is told."""

Batches = Iterator[tuple[PixelBatch, Targets, list[Record]]]


@dataclasses.dataclass(frozen=True)
class DryRun:
    """What a training needs, measured on a copy of the detector.

    Attributes:
        parameters, trainable: how many.
        step_seconds: of a step, loading included.
        evaluation_seconds: of an evaluation, estimated from a few images.
        memory: peak of the process, or of the GPU, in bytes; None where the system does not tell.
        losses: of the last step.
    """

    parameters: int
    trainable: int
    step_seconds: float
    evaluation_seconds: float
    memory: int | None
    losses: dict[str, float]


class Trainer:
    """One training run in one folder.

    Args:
        detector: to be trained, from the weights that it has. It is moved to the device.
        card: what is written beside its weights: classes, preprocessing, and how it is built.
        config: the recipe.
        train_data, val_data: checked data sets of the card's classes.
        out: the run's folder.
        weights: where the detector's weights come from, see `InitialWeights.parse`; None where they were just given.
            A resumed run must say the same.
        distributed: the processes that train together; by default this one alone.
        worker_init: called with its number in each loading process.
        command: noted in `environment.json`.
    Attributes:
        length: how long the run is; `plan_for` and `resume` change it.
        step, epoch: how many are done.
        best_ap: of all evaluations; -1 before the first.
    Raises:
        DataError: a data set without any object.
        ConfigError: the classes of detector, card and data differ, or the recipe does not fit the detector.
    """

    def __init__(
        self,
        detector: Detector,
        card: ModelCard,
        config: TrainConfig,
        train_data: AnnotatedImages,
        val_data: AnnotatedImages,
        out: Path,
        *,
        weights: str | None = None,
        distributed: Distributed | None = None,
        worker_init: Callable[[int], None] | None = None,
        command: Sequence[str] = (),
    ) -> None:
        require_objects(train_data)
        require_objects(val_data)
        _require_classes(detector, card, train_data, val_data)
        torch.manual_seed(config.seed)
        self.config = config
        self.card = card
        self.weights = weights
        self.command = command
        self.distributed = distributed or Distributed()
        self.device = choose_device(config.device)
        self.preprocess = Preprocess(card.preprocess)
        freeze(detector, config.freeze)
        self.detector = detector
        if config.sync_norms and self.distributed.size > 1:
            self.detector = synchronised(detector, self.device)
        self.loader, self.sampler = self._training_loader(train_data, worker_init)
        self.validation = self._validation(val_data)
        self.length = plan_length(
            len(train_data.records),
            config.optim.batch_size,
            val_images=len(val_data.records),
            epochs=config.epochs,
            steps=config.steps,
            warmup_steps=config.optim.warmup_steps,
            evaluate_every=config.evaluate_every,
        )
        self.optimizer = Optimizer(self.detector, config.optim, steps=self.length.steps, device=self.device)
        self.losses = self.distributed.parallel(self.detector)
        self.ema = None if config.ema == 0 else EMA(self.detector, decay=0)
        self._set_length(self.length)
        self.folder = RunFolder(out, keep=config.keep) if self.distributed.is_main else SilentFolder(out)
        self.step, self.epoch, self.best_ap, self.stale = 0, 0, -1.0, 0
        self._circumstances = circumstances(train_data, val_data, self.device, self.distributed.size)
        self._watcher, self._should_stop = Watcher(), lambda: False
        self._saved, self._stopping = time.monotonic(), False
        self._first_step, self._first_step_ended = 0, 0.0

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimiser in one epoch."""
        return self.sampler.per_epoch

    @property
    def epochs(self) -> int:
        """Of the whole run; the last one may be cut short."""
        return -(-self.length.steps // self.steps_per_epoch)

    @property
    def evaluated(self) -> Detector:
        """The network that is evaluated and kept: the average of the weights, where there is one."""
        return self.ema.network if self.ema else self.detector  # type: ignore[return-value]

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or patience is at its end."""
        return self.epoch == self.epochs or 0 < self.config.patience <= self.stale

    def run(self, watcher: Watcher | None = None, should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end, or until `should_stop`.

        Args:
            watcher: is told how it goes, in the main process.
            should_stop: asked before and after each step and before each evaluated image. Any one of several
                processes stops all of them.
        Returns:
            True when finished; False when stopped, with a checkpoint left to resume from.
        Raises:
            DataError: an image cannot be read or is not as annotated.
            CheckpointError: the disk is full; the last checkpoint stays.
            FpnkitError: the loss is not finite; the step, the image, its boxes and the terms are named.
        """
        self._watcher = watcher if watcher and self.distributed.is_main else Watcher()
        self._should_stop, self._stopping = should_stop, False
        if self.step == 0:
            torch.manual_seed(self.config.seed)  # whatever was computed since the detector was made
        self.folder.open(self._config_file(), self.command, step=self.step, epoch=self.epoch)
        if self.step and self.distributed.is_main:  # a kill may have come between the state and these
            save_weights(self.folder.last, self.evaluated, self.card)
        self.sampler.numbers, self._first_step = range(self.step, self.length.steps), self.step
        with contextlib.closing(iter(self.loader)) as batches:
            while not self.finished and not self._stops():
                self._epoch(batches)
        if not self.finished:
            self._save()
            self.folder.draw_curves()
        self.folder.close()
        return self.finished

    def dry_run(self, steps: int = 2) -> DryRun:
        """Estimate time and memory from a few steps and images with a copy of the detector.

        What cannot work, or is too large, fails now. Nothing is written, and the run itself stays what it was.

        Args:
            steps: of the copy; where there are several, the first one does not count.
        """
        devices = [self.device] if self.device.type == "cuda" else []
        numbers, seconds, losses = self.sampler.numbers, [], {}
        copied = copy.deepcopy(self.detector).train()
        optimizer = Optimizer(copied, self.optimizer.config, steps=self.length.steps, device=self.device)
        parallel = self.distributed.parallel(copied)
        with torch.random.fork_rng(devices=devices):
            self.sampler.numbers, began = range(steps), time.perf_counter()
            with contextlib.closing(iter(self.loader)) as batches:
                for number, (batch, targets, records) in enumerate(batches):
                    losses = self._train_step(number, batch, targets, records, optimizer, parallel)
                    seconds.append(time.perf_counter() - began)
                    began = time.perf_counter()
            self.sampler.numbers = numbers
            evaluation_seconds = self.validation.seconds(copied)
        parameters = list(copied.parameters())
        counted = seconds[1:] or seconds
        return DryRun(
            parameters=sum(each.numel() for each in parameters),
            trainable=sum(each.numel() for each in parameters if each.requires_grad),
            step_seconds=sum(counted) / len(counted),
            evaluation_seconds=evaluation_seconds,
            memory=peak_memory(self.device),
            losses=losses,
        )

    def plan_for(self, seconds: float) -> DryRun:
        """Choose the number of steps so that the training with its evaluations ends within a time.

        Args:
            seconds: from now on.
        Returns:
            What it was computed from: a dry run of a few steps.
        Raises:
            ConfigError: too little time.
        """
        began = time.monotonic()
        measured = self.dry_run(steps=6)
        left, step_seconds, evaluation_seconds = zip(
            *self.distributed.gather(
                (seconds - (time.monotonic() - began), measured.step_seconds, measured.evaluation_seconds)
            ),
            strict=True,
        )
        steps, every = plan_for_time(
            min(left),
            step_seconds=max(step_seconds),
            evaluation_seconds=max(evaluation_seconds),
            steps_per_epoch=self.steps_per_epoch,
            evaluate_every=self.config.evaluate_every,
        )
        warmup = self.config.optim.warmup_steps
        warmup = default_warmup(steps) if warmup is None else warmup
        self._set_length(Length(steps=steps, warmup_steps=warmup, evaluate_every=every))
        return measured

    def plan(self, measured: DryRun | None = None) -> str:
        """The length of the run in one line, with the time that it takes, where that was measured."""
        evaluations = self.length.evaluations(self.steps_per_epoch)
        epochs = self.length.steps / self.steps_per_epoch
        line = f"{self.length.steps} steps ({epochs:.4g} epochs), {evaluations} evaluations"
        if measured is None:
            return line
        seconds = self.length.steps * measured.step_seconds + evaluations * measured.evaluation_seconds
        return f"{line}, about {duration(seconds)}"

    def resume(self) -> list[str]:
        """Go on from the folder's last checkpoint, with the length that was planned when the run began.

        Returns:
            What has changed since, a sentence each; none where the run will end bit for bit as if it had never stopped.
        Raises:
            CheckpointError: there is none, it is damaged, or of another model or recipe.
        """
        path = self.folder.state
        state = load_state(path)
        require_resumable(state, self._description(), path)
        try:
            length = Length(**state["length"])
            every = self.config.evaluate_every or length.evaluate_every
            self._set_length(dataclasses.replace(length, evaluate_every=every))
            fill(self.detector, state["detector"], path)
            if self.ema:
                fill(self.evaluated, state["ema"], path)
            self.optimizer.inner.load_state_dict(state["optimizer"])
            self.step, self.best_ap, self.epoch = state["step"], state["best_ap"], state["epoch"]
            self.stale = state["stale"]
            if self.epochs != state["epochs"]:  # the data has grown or shrunk by whole batches
                done = self.epoch == state["epochs"]
                self.epoch = self.epochs if done else min(self.step // self.steps_per_epoch, self.epochs - 1)
            torch.set_rng_state(state["random"])
            if self.device.type == "cuda" and state["random_cuda"] is not None:
                torch.cuda.set_rng_state(state["random_cuda"], self.device)
            return differences(state["circumstances"], self._circumstances)
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"{path}: damaged training state: {type(error).__name__}: {error}") from None

    def _training_loader(
        self, data: AnnotatedImages, worker_init: Callable[[int], None] | None
    ) -> tuple[BatchLoader, BatchSampler]:
        return make_training_loader(
            data,
            self.preprocess,
            self.config.augment,
            seed=self.config.seed,
            batch_size=self.config.optim.batch_size,
            workers=self.config.workers,
            rank=self.distributed.rank,
            processes=self.distributed.size,
            max_pixels=self.config.max_pixels,
            worker_init=worker_init,
        )

    def _validation(self, data: AnnotatedImages) -> Validation:
        return Validation(
            data=data,
            preprocess=self.preprocess,
            device=self.device,
            precision=self.config.optim.precision,
            losses=self.config.val_losses,
            workers=self.config.workers,
            max_pixels=self.config.max_pixels,
            distributed=self.distributed,
        )

    def _set_length(self, length: Length) -> None:
        self.length = length
        self.optimizer.steps, self.optimizer.warmup_steps = length.steps, length.warmup_steps
        if self.ema:
            self.ema.decay = ema_decay(length.steps) if self.config.ema is None else self.config.ema

    def _estimate(self) -> None:
        """Tell once, from the first steps, how long the rest will take."""
        done = self.step - self._first_step
        if done == 1:
            self._first_step_ended = time.monotonic()
        elif done == ESTIMATE_AFTER and self.length.steps > 2 * ESTIMATE_AFTER:
            step_seconds = (time.monotonic() - self._first_step_ended) / (done - 1)
            image_seconds = EVALUATED_IMAGE * step_seconds / self.config.optim.batch_size
            evaluations = self.length.evaluations(self.steps_per_epoch) - self.epoch // self.length.evaluate_every
            seconds = (self.length.steps - self.step) * step_seconds
            seconds += evaluations * image_seconds * len(self.validation.data.records)
            self._watcher.on_note(f"{step_seconds:.2f} s a step: about {duration(seconds)} left, evaluations included")

    def _stops(self) -> bool:
        """Whether to stop now. Several processes ask in the all-reduce of a step, so that they stop at the same one."""
        if self.distributed.size == 1 and not self._stopping:
            self._stopping = self._should_stop()
        return self._stopping

    def _epoch(self, batches: Batches) -> None:
        self.detector.train()
        epoch = self.epoch + 1
        end = min(epoch * self.steps_per_epoch, self.length.steps)
        for batch, targets, records in islice(batches, end - self.step):
            if self.step == 0:
                self.folder.draw_batch(batch, targets, self.card.classes)
            losses = self._train_step(self.step, batch, targets, records, self.optimizer, self.losses)
            self.step += 1
            if self.ema:
                self.ema.update(self.detector, self.step)
            self.folder.add_losses(self.step, losses, self.optimizer.learning_rate(self.step))
            self._watcher.on_step(self.step, self.length.steps, losses)
            self._estimate()
            if self._stops():
                return
            if time.monotonic() - self._saved >= self.config.checkpoint_seconds:
                self._save()
                self.folder.draw_curves()
        evaluates = epoch % self.length.evaluate_every == 0 or epoch == self.epochs
        if evaluates:
            self._save()
            if not self._evaluate(epoch):
                return
        self.epoch = epoch
        if evaluates:
            self._save()
            self.folder.draw_curves()

    def _train_step(
        self,
        number: int,
        batch: PixelBatch,
        targets: Targets,
        records: list[Record],
        optimizer: Optimizer,
        losses: nn.Module,
    ) -> dict[str, float]:
        """One step of all processes together.

        Args:
            number: steps before this one.
            batch, targets, records: of this process.
            optimizer: changes the weights.
            losses: (batch, targets) -> losses, see `Distributed.parallel`.
        """

        def mean(values: Tensor) -> Tensor:
            """Of losses and of the wish to stop, over all processes: the one small all-reduce of a step."""
            stop = values.new_tensor([float(self.distributed.size > 1 and self._should_stop())])
            means = self.distributed.mean(torch.cat([stop, values]))
            self._stopping = bool(means[0] > 0)
            return means[1:]

        try:
            return optimizer.step(number, self._parts(batch, targets, records, losses), mean=mean)
        except NotFiniteError as error:
            culprits = self.distributed.gather(self._culprit(batch, targets, records))
            culprit = next(filter(None, culprits), "no single image")
            raise FpnkitError(
                f"step {number + 1}: the loss is not finite ({error}) on {culprit}; lower optim.lr, or check the boxes"
            ) from None

    def _parts(
        self, batch: PixelBatch, targets: Targets, records: list[Record], run: Callable[..., dict[str, Tensor]]
    ) -> list[Callable[[], dict[str, Tensor]]]:
        """What computes the losses of each part of a batch."""
        size = -(-len(records) // self.config.optim.accumulate)
        slices = [slice(start, start + size) for start in range(0, len(records), size)]
        return [self._losses_of(batch, targets, part, run) for part in slices]

    def _losses_of(
        self, batch: PixelBatch, targets: Targets, part: slice, run: Callable[..., dict[str, Tensor]]
    ) -> Callable[[], dict[str, Tensor]]:
        """What computes the losses of some images of a batch."""

        def losses() -> dict[str, Tensor]:
            return run(self.preprocess.normalise(batch[part].to(self.device)), targets[part].to(self.device))

        return losses

    def _culprit(self, batch: PixelBatch, targets: Targets, records: list[Record]) -> str | None:
        """The image of this process whose loss is not finite, its boxes in the batch's pixels, and the terms; None
        where it is none of them."""
        alone = self.distributed.size == 1
        if self.config.sync_norms and not alone:  # images by themselves would wait for the other processes
            return ", ".join(str(record.path) for record in records)
        for index, record in enumerate(records):
            with torch.no_grad(), mixed_precision(self.device, self.config.optim.precision):
                losses = self._losses_of(batch, targets, slice(index, index + 1), self.detector.losses)()
            bad = [name for name, value in losses.items() if not torch.isfinite(value)]
            if bad:
                found = targets.boxes_xyxy[index][targets.valid[index]]
                boxes = [[round(side, 1) for side in box] for box in found.tolist()]
                return f"{record.path}: {', '.join(bad)}, boxes {boxes[:5]}{' ...' * (len(boxes) > 5)}"
        return ", ".join(str(record.path) for record in records) if alone else None

    def _evaluate(self, epoch: int) -> bool:
        """Evaluate, and keep the best weights; False when stopped in between."""
        result = self.validation.evaluate(
            self.evaluated, on_images=self._watcher.on_evaluated_images, should_stop=self._should_stop
        )
        if result is None:
            self._stopping = True
            return False
        self.folder.add_metrics(self.step, epoch, result.metrics)
        self.folder.draw_evaluation(result, self.validation.data)
        self._watcher.on_evaluation(epoch, result.metrics)
        self.stale += 1
        if result.metrics["AP"] > self.best_ap:
            self.best_ap, self.stale = result.metrics["AP"], 0
            if self.distributed.is_main:
                save_weights(self.folder.best, self.evaluated, self.card)
        return True

    def _save(self) -> None:
        if not self.distributed.is_main:
            return
        state = {
            "format": FORMAT,
            "description": self._description(),
            "length": dataclasses.asdict(self.length),
            "circumstances": self._circumstances,
            "detector": self.detector.state_dict(),
            "optimizer": self.optimizer.inner.state_dict(),
            "step": self.step,
            "epoch": self.epoch,
            "epochs": self.epochs,
            "best_ap": self.best_ap,
            "stale": self.stale,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        if self.ema:
            state["ema"] = self.ema.network.state_dict()
        self.folder.save_state(self.step, state)
        save_weights(self.folder.last, self.evaluated, self.card)
        self._saved = time.monotonic()

    def _description(self) -> dict[str, Any]:
        return description(self.config, self.card, self.weights)

    def _config_file(self) -> dict[str, Any]:
        """The content of `config.json`."""
        return {
            "classes": list(self.card.classes),
            "model": self.card.name if self.card.spec is None else as_plain(self.card.spec),
            "weights": self.weights,
            "train": as_plain(self.config),
            "length": dataclasses.asdict(self.length),
        }


def freeze(detector: Detector, what: str) -> None:
    """Choose which parts of a detector are not trained.

    Args:
        detector: changed in place.
        what: `model` for what the detector was built with, `none`, or its `backbone`.
    Raises:
        ConfigError: it has no attribute `backbone` to be frozen.
    """
    backbone = getattr(detector, "backbone", None)
    if what == "none":
        if isinstance(backbone, Backbone):
            backbone.thaw()
        detector.requires_grad_(True)
    elif what == "backbone":
        if not isinstance(backbone, nn.Module):
            raise ConfigError(f"freeze=backbone: {type(detector).__name__} has no attribute `backbone`")
        if isinstance(backbone, Backbone):
            backbone.freeze([backbone.body])
        else:
            backbone.requires_grad_(False)


def duration(seconds: float) -> str:
    """As people say it: `45 s`, `13 min`, `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _require_classes(detector: Detector, card: ModelCard, *datasets: AnnotatedImages) -> None:
    if detector.num_classes != len(card.classes):
        raise ConfigError(
            f"the detector has {detector.num_classes} classes, its card names {len(card.classes)}: "
            f"{', '.join(card.classes[:10])}"
        )
    for data in datasets:
        if data.classes != card.classes:
            theirs, ours = (", ".join(classes[:10]) for classes in (data.classes, card.classes))
            raise ConfigError(f"{data.path} has the classes {theirs}, the detector {ours}")
