"""fpnkit train: fit a detector to your own images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .data_options import add_backbone_weights, add_machine_options, add_training_data, read_training_data
from .output import require_folder

if TYPE_CHECKING:
    from ..training.distributed import World
    from ..training.recipe import TrainConfig

EPILOG = """\
examples:
  fpnkit train --data mydata/ --out runs/mine         a VOC or YOLO folder with train and val
  fpnkit train --data train.json --val val.json --out runs/mine          images are found beside the files
  fpnkit train ... --classes person dog --model faster_rcnn_lite0_fpn --epochs 20
  fpnkit train ... --from default --set optim.lr=1e-4 ema=0.999          fine-tune the shipped detector
  torchrun --nproc-per-node 4 --max-restarts 3 -m fpnkit train ...       several processes, the same batches
  fpnkit train ... --dry-run                         what it costs, before it costs
  fpnkit train ... --out runs/mine --resume          go on after Ctrl-C, SIGTERM or a crash

The run's folder holds weights/best.safetensors and weights/last.safetensors, metrics.csv, curves.png, config.json,
pictures of the first batch, of predictions, confusion and precision over recall, and TensorBoard events.
Use it at once: fpnkit predict photo.jpg --model runs/mine
"""


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "train",
        help="train a detector on your own images",
        description="Train a detector on your own images: COCO, Pascal VOC or YOLO, told apart by looking.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data = add_training_data(parser, out="RUN", out_help="the run's folder")
    data.add_argument("--resume", action="store_true", help="go on from the folder's last checkpoint")
    data.add_argument("--dry-run", action="store_true", help="build all, run two batches, tell memory, time and ETA")
    model = parser.add_argument_group("model")
    model.add_argument("--model", help="name in the zoo (default: faster_rcnn_r50_fpn, or that of --from)")
    model.add_argument(
        "--from",
        dest="start_from",
        metavar="MODEL",
        help="fine-tune: 'default', a run's folder or a .safetensors file; classes of the same name are kept",
    )
    add_backbone_weights(model)
    recipe = parser.add_argument_group("recipe; what is not given is as in --recipe, or as the default")
    recipe.add_argument("--recipe", type=Path, metavar="JSON", help="a recipe, or the config.json of another run")
    recipe.add_argument("--epochs", type=int, help="passes over the data (default: 12)")
    recipe.add_argument("--batch-size", type=int, help="images a step (default: 8)")
    recipe.add_argument("--lr", type=float, help="peak learning rate (default: 0.0004)")
    recipe.add_argument("--backbone-lr-factor", type=float, help="the backbone's share of --lr (default: 0.3)")
    recipe.add_argument("--warmup-steps", type=int, help="linear warm-up (default: 200)")
    recipe.add_argument("--crop", type=int, help="side of the training crop (default: 512)")
    recipe.add_argument(
        "--scale",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="scale jitter, relative to fitting the image into the crop (default: 0.8 1.6)",
    )
    recipe.add_argument("--evaluate-every", type=int, help="epochs between evaluations (default: 1)")
    recipe.add_argument("--seed", type=int, help="of everything random (default: 0)")
    recipe.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE",
        help="any field of the recipe: optim.schedule=step ema=0.999 patience=5; docs/train.md lists them",
    )
    add_machine_options(parser)
    return parser


SHORT = {
    "epochs": "epochs",
    "batch_size": "optim.batch_size",
    "lr": "optim.lr",
    "backbone_lr_factor": "optim.backbone_lr_factor",
    "warmup_steps": "optim.warmup_steps",
    "crop": "augment.crop",
    "scale": "augment.scale",
    "evaluate_every": "evaluate_every",
    "seed": "seed",
    "precision": "optim.precision",
    "workers": "workers",
    "device": "device",
    "model": "model",
}
"""Option -> the field that it sets."""


def recipe_of(arguments: argparse.Namespace, model: str | None) -> TrainConfig:
    """Defaults, then --recipe, then options, then --set.

    Args:
        arguments: of the command line.
        model: of the weights that are fine-tuned.
    """
    from ..settings import from_recipe, with_settings
    from ..training.recipe import TrainConfig

    config = TrainConfig(model=model) if model else TrainConfig()
    if arguments.recipe:
        config = from_recipe(config, arguments.recipe)
    given = {field: getattr(arguments, option) for option, field in SHORT.items()}
    words = [
        f"{field}={','.join(map(str, value)) if isinstance(value, list) else value}"
        for field, value in given.items()
        if value is not None
    ]
    return with_settings(config, [*words, *arguments.set])


def run(arguments: argparse.Namespace) -> int:
    """Train; 0 when finished, 4 when stopped with a checkpoint to resume from."""
    from ..inference.predictor import find_model
    from ..training.distributed import join, leave
    from ..weights.checkpoint import read_card
    from .terminal import console, errors

    start_from = find_model(arguments.start_from) if arguments.start_from else None
    if start_from and arguments.backbone_weights != "none":
        raise ConfigError("--from and --backbone-weights exclude each other: the weights bring a backbone")
    config = recipe_of(arguments, read_card(start_from).model if start_from else None)
    world = join(config.device)
    console.quiet = errors.quiet = not world.leads
    try:
        return _train(arguments, config, world, start_from)
    finally:
        console.quiet = errors.quiet = False
        leave()


def _train(arguments: argparse.Namespace, config: TrainConfig, world: World, start_from: Path | None) -> int:
    from ..training.distributed import restarted
    from ..training.run_folder import RunFolder
    from ..training.trainer import Trainer
    from .terminal import TrainingScreen, console, rehearsal_report

    folder = RunFolder(arguments.out)
    resume = arguments.resume or (restarted() and folder.state.exists())
    if folder.holds_run and not (resume or restarted()):
        raise ConfigError(f"{arguments.out} holds a run already: pass --resume to go on, or another --out")
    if resume and not folder.state.exists():
        raise ConfigError(f"{folder.state}: not there, nothing to resume: leave out --resume to start a run")
    if not arguments.dry_run:
        require_folder(arguments.out)
    train_data, val_data = read_training_data(arguments)
    weights = "none" if resume else arguments.backbone_weights
    trainer = Trainer(
        config,
        train_data,
        val_data,
        arguments.out,
        pretrained=weights == "timm",
        from_scratch=arguments.backbone_weights == "none" and start_from is None,
        start_from=None if resume else start_from,
        world=world,
        backbone_weights=None if weights in ("none", "timm") else Path(weights),
    )
    if resume:
        trainer.resume()
    console.print(
        f"{config.model} on {trainer.device}: {len(train_data.records)} images, "
        f"{len(train_data.classes)} classes, {trainer.total_steps} steps",
        soft_wrap=True,
    )
    if trainer.taken:
        console.print(str(trainer.taken), soft_wrap=True)
    if arguments.dry_run:
        rehearsal_report(trainer.rehearse(), trainer.total_steps)
        return 0
    with TrainingScreen(trainer.total_steps, trainer.step) as screen:
        finished = trainer.run(screen)
    if not finished:
        console.print(f"stopped at step {trainer.step}: the same command with --resume goes on")
        return 4
    console.print(f"done: best AP {100 * trainer.best_ap:.1f}, weights and curves in {arguments.out}", soft_wrap=True)
    return 0
