"""A whole training in one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data.annotated import AnnotatedImages
from ..data.pixels import PreprocessConfig
from ..detectors import Detector
from ..errors import ConfigError
from ..inference.predictor import Predictor, load
from ..weights import InitialWeights, ModelCard
from ..zoo import ModelSpec, build
from .choice import Choice, choose
from .data import Data, read_train_and_val
from .distributed import Distributed, join_processes, leave_processes, restarted
from .recipe import TrainConfig
from .run_folder import RunFolder
from .trainer import Trainer
from .watcher import Watcher


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training that has ended.

    Attributes:
        folder: what it left; `fpnkit.load`, `fpnkit evaluate` and `fpnkit export` take it as a model.
        finished: whether it came to its end; a run that was stopped can be resumed.
        steps: of the optimiser that are done.
        best_ap: AP of its best weights on the validation data, in 0..1; -1 before the first evaluation.
    """

    folder: Path
    finished: bool
    steps: int
    best_ap: float

    def predictor(self, **options: Any) -> Predictor:
        """The best weights, ready to find objects; options as for `fpnkit.load`."""
        return load(self.folder, **options)


def train(
    data: Data,
    out: str | Path,
    *,
    val: Data | None = None,
    model: ModelSpec | Detector | str | None = None,
    weights: InitialWeights | str | None = None,
    minutes: float | None = None,
    classes: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    images_dir: str | Path | None = None,
    val_images_dir: str | Path | None = None,
    strict: bool = False,
    preprocess: PreprocessConfig | None = None,
    recipe: str | Path | None = None,
    config: TrainConfig | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> Run:
    """Train a detector on annotated images.

        run = fpnkit.train("cells/", "runs/cells", minutes=20)
        found = run.predictor()("cell.jpg")

    By default the shipped `coco80` is fine-tuned, as long as fits the size of the data.

    Args:
        data: to train on: COCO, Pascal VOC or YOLO, told apart by looking; see `Data`.
        out: the run's folder, see `RunFolder`.
        val: to validate on; by default the split `val` of `data`.
        model: a spec, a preset's name, or a detector of your own; by default that of `weights`.
        weights: `coco80`, `default`, a run's folder, a file, `timm` or `random`, see `InitialWeights.parse`. A detector
            of your own keeps the weights that it has where nothing is named.
        minutes: end within this time, reading the data included, instead of what the size of the data asks for.
        classes, rename, images_dir, val_images_dir, strict: see `read_train_and_val`.
        preprocess: of a detector of your own.
        recipe: a JSON file, such as the `config.json` of another run.
        config: a recipe from Python instead.
        resume: go on from the last checkpoint in `out`, with otherwise the same arguments.
        watcher: is told how it goes.
        should_stop: asked after each step and each evaluated image; where it says so, a checkpoint is written, and the
            run returned is not finished.
        settings: fields of the recipe by name (`epochs=20`, `lr=1e-4`), see `with_named`; those of the spec as
            `**{"model.rpn.anchor_scale": 6}`.
    Returns:
        The run, in all processes where torchrun started several.
    Raises:
        ConfigError: an unknown name or setting, or a folder that holds a run already.
        DataError: data that cannot be used.
        CheckpointError: weights or a checkpoint that cannot be used, or a full disk.
        FpnkitError: the loss is not finite.
    """
    began = time.monotonic()
    out = Path(out)
    resume = resumes(out, resume)
    chosen = choose(model, weights, recipe=None if recipe is None else Path(recipe), config=config, settings=settings)
    train_data, val_data = read_train_and_val(
        data,
        val,
        images_dir=None if images_dir is None else Path(images_dir),
        val_images_dir=None if val_images_dir is None else Path(val_images_dir),
        classes=classes,
        rename=rename,
        strict=strict,
        max_pixels=chosen.config.max_pixels,
    )
    distributed = join_processes(chosen.config.device)
    trainer = prepare(
        chosen,
        train_data,
        val_data,
        out,
        preprocess=preprocess,
        seconds=None if minutes is None else 60 * minutes - (time.monotonic() - began),
        resume=resume,
        distributed=distributed,
        watcher=watcher,
    )
    finished = trainer.run(watcher, should_stop)
    leave_processes()
    return Run(folder=out, finished=finished, steps=trainer.step, best_ap=trainer.best_ap)


def resumes(out: Path, resume: bool) -> bool:
    """Whether a training in this folder goes on from a checkpoint.

    Args:
        out: the run's folder.
        resume: whether that is asked for; processes that torchrun started again do it by themselves.
    Raises:
        ConfigError: there is a run and nobody asked to resume it, or there is none to resume.
    """
    folder = RunFolder(out)
    again = restarted()
    if folder.holds_run and not (resume or again):
        raise ConfigError(f"{out} holds a run already: pass resume=True to go on, or out=ANOTHER")
    if resume and not folder.state.exists():
        raise ConfigError(f"{folder.state}: not there, nothing to resume: leave out resume=True to start a run")
    return resume or (again and folder.state.exists())


def prepare(
    chosen: Choice,
    train_data: AnnotatedImages,
    val_data: AnnotatedImages,
    out: Path,
    *,
    preprocess: PreprocessConfig | None = None,
    seconds: float | None = None,
    resume: bool = False,
    distributed: Distributed | None = None,
    watcher: Watcher | None = None,
    worker_init: Callable[[int], None] | None = None,
    command: Sequence[str] = (),
) -> Trainer:
    """A trainer that is ready to run.

    Args:
        chosen: model, weights and recipe.
        train_data, val_data: of the same classes.
        out: the run's folder.
        preprocess: of a detector that is given.
        seconds: that are left for the training; by default its length follows from the size of the data.
        resume: from the last checkpoint in `out`, whose length then counts.
        distributed, worker_init, command: see `Trainer`.
        watcher: is told what the training starts from, and how long it is.
    Raises:
        ConfigError, DataError, CheckpointError: see `train`.
    """
    config, classes = chosen.config, train_data.classes
    alone = distributed is None or distributed.is_main
    tell = (watcher or Watcher()).on_note if alone else Watcher().on_note
    if seconds is not None and (config.epochs or config.steps):
        raise ConfigError("minutes=N excludes epochs=N and steps=N: each says how long the training is")
    torch.manual_seed(config.seed)
    detector, card = _built(chosen.model, classes, preprocess)
    if not resume:
        tell(chosen.note)
    if chosen.weights is not None and (not resume or chosen.weights.kind == "random"):  # which decides what is frozen
        transfer = chosen.weights.apply(detector, classes, spec=card.spec)
        if transfer is not None:
            tell(str(transfer))
    trainer = Trainer(
        detector,
        card,
        config,
        train_data,
        val_data,
        out,
        weights=None if chosen.weights is None else chosen.weights.text,
        distributed=distributed,
        worker_init=worker_init,
        command=command,
    )
    measured = None
    if resume:
        for difference in trainer.resume():
            tell(f"resuming from step {trainer.step}: {difference}")
    elif seconds is not None:
        measured = trainer.plan_for(seconds)
    tell(
        f"{card.name} on {trainer.device}: {len(train_data.records)} images, {len(classes)} classes, "
        f"{trainer.plan(measured)}"
    )
    return trainer


def _built(
    model: ModelSpec | Detector, classes: tuple[str, ...], preprocess: PreprocessConfig | None
) -> tuple[Detector, ModelCard]:
    if isinstance(model, Detector):
        if preprocess is None:
            raise ConfigError(f"preprocess is missing: how are the images of {type(model).__name__} prepared?")
        return model, ModelCard.of_detector(model, preprocess, classes)
    if preprocess is not None:
        raise ConfigError("preprocess is for a detector of your own: set model.preprocess.* of a spec")
    return build(model, len(classes)), ModelCard.of_spec(model, classes)
