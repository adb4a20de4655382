"""fpnkit train: fit a detector to your own images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .data_options import add_backbone_weights, add_machine_options, add_training_data, read_training_data
from .output import require_folder

EPILOG = """\
examples:
  fpnkit train --data mydata/ --out runs/mine         a VOC or YOLO folder with train and val
  fpnkit train --data train.json --val val.json --out runs/mine          images are found beside the files
  fpnkit train ... --classes person dog --model faster_rcnn_lite0_fpn --epochs 20
  fpnkit train ... --out runs/mine --resume          go on after Ctrl-C, SIGTERM or a crash

The run's folder holds weights/best.safetensors and weights/last.safetensors, metrics.csv, curves.png, config.json
and TensorBoard events. Use it at once: fpnkit predict photo.jpg --model runs/mine
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
    model = parser.add_argument_group("model")
    model.add_argument("--model", default="faster_rcnn_r50_fpn", help="name in the zoo (default: %(default)s)")
    add_backbone_weights(model)
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument("--epochs", type=int, default=12, help="passes over the data (default: %(default)s)")
    recipe.add_argument("--batch-size", type=int, default=8, help="images a step (default: %(default)s)")
    recipe.add_argument("--lr", type=float, default=4e-4, help="peak learning rate (default: %(default)s)")
    recipe.add_argument(
        "--backbone-lr-factor", type=float, default=0.3, help="the backbone's share of --lr (default: %(default)s)"
    )
    recipe.add_argument("--warmup-steps", type=int, default=200, help="linear warm-up (default: %(default)s)")
    recipe.add_argument("--crop", type=int, default=512, help="side of the training crop (default: %(default)s)")
    recipe.add_argument(
        "--scale",
        type=float,
        nargs=2,
        default=(0.8, 1.6),
        metavar=("LOW", "HIGH"),
        help="scale jitter, relative to fitting the image into the crop (default: 0.8 1.6)",
    )
    recipe.add_argument("--evaluate-every", type=int, default=1, help="epochs between evaluations (default: 1)")
    recipe.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    add_machine_options(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Train; 0 when finished, 4 when stopped with a checkpoint to resume from."""
    from ..data.loader import AugmentConfig
    from ..engine.run_folder import RunFolder
    from ..engine.train import TrainConfig, Trainer
    from .terminal import TrainingScreen, console

    config = TrainConfig(
        model=arguments.model,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        lr=arguments.lr,
        backbone_lr_factor=arguments.backbone_lr_factor,
        warmup_steps=arguments.warmup_steps,
        precision=arguments.precision,
        workers=arguments.workers,
        evaluate_every=arguments.evaluate_every,
        seed=arguments.seed,
        device=arguments.device,
        augment=AugmentConfig(crop=arguments.crop, scale=tuple(arguments.scale)),
    )
    folder = RunFolder(arguments.out)
    if folder.holds_run and not arguments.resume:
        raise ConfigError(f"{arguments.out} holds a run already: pass --resume to go on, or another --out")
    if arguments.resume and not folder.state.exists():
        raise ConfigError(f"{folder.state}: not there, nothing to resume: leave out --resume to start a run")
    require_folder(arguments.out)
    train_data, val_data = read_training_data(arguments)
    weights = "none" if arguments.resume else arguments.backbone_weights
    trainer = Trainer(
        config,
        train_data,
        val_data,
        arguments.out,
        pretrained=weights == "timm",
        from_scratch=arguments.backbone_weights == "none",
        backbone_weights=None if weights in ("none", "timm") else Path(weights),
    )
    if arguments.resume:
        trainer.resume()
    console.print(
        f"{config.model} on {trainer.device}: {len(train_data.records)} images, "
        f"{len(train_data.classes)} classes, {trainer.total_steps} steps",
        soft_wrap=True,
    )
    with TrainingScreen(trainer.total_steps, trainer.step) as screen:
        finished = trainer.run(screen)
    if not finished:
        console.print(f"stopped at step {trainer.step}: the same command with --resume goes on")
        return 4
    console.print(f"done: best AP {100 * trainer.best_ap:.1f}, weights and curves in {arguments.out}", soft_wrap=True)
    return 0
