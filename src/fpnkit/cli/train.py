"""fpnkit train: fit a detector to your own images."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .data_options import add_machine_options, add_training_data, read_training_data
from .output import require_folder

if TYPE_CHECKING:
    from ..training.choice import Choice
    from ..training.distributed import Distributed

EPILOG = """\
examples:
  fpnkit train --data mydata/ --out runs/mine         fine-tune the shipped coco80 on a folder with train and val
  fpnkit train --data mydata/ --out runs/mine --minutes 30                ... and be done in half an hour
  fpnkit train --data train.json --val val.json --out runs/mine           images are found beside the files
  fpnkit train ... --from default --classes person --set optim.lr=1e-4 ema=0.999
  fpnkit train ... --model faster_rcnn_r50_fpn --from timm                ImageNet weights of the backbone
  fpnkit train ... --backbone convnext_tiny --pyramid bifpn --channels 128 --head cascade --from timm
  fpnkit train ... --set model.rpn.anchor_scale=6 model.postprocess.detections=300
  torchrun --nproc-per-node 4 --max-restarts 3 -m fpnkit train ...        several processes, the same batches
  fpnkit train ... --dry-run                          estimate time and memory without training
  fpnkit train ... --out runs/mine --resume           go on after Ctrl-C, SIGTERM or a crash

The run's folder holds weights/best.safetensors and weights/last.safetensors, metrics.csv, curves.png, config.json,
pictures of the first batch, of predictions, confusion and precision over recall, and TensorBoard events.
Use it at once: fpnkit predict photo.jpg --model runs/mine
"""

FROM_HELP = (
    "where weights come from: coco80 or default (shipped), a run's folder, an fpnkit .safetensors file; timm (ImageNet "
    "weights of the backbone, downloaded), a classifier's .pth or .safetensors file (of the backbone), or random. "
    "Classes of the same name are kept (default: coco80, or random for another model)"
)


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
    data.add_argument("--dry-run", action="store_true", help="estimate time and memory without training")
    model = parser.add_argument_group("model and the weights that it starts from")
    model.add_argument("--from", dest="weights", metavar="WHAT", help=FROM_HELP)
    model.add_argument("--model", metavar="PRESET", help="see `fpnkit models` (default: that of --from)")
    model.add_argument("--backbone", metavar="NAME", help="another backbone, of timm: see `fpnkit models timm`")
    model.add_argument("--pyramid", metavar="NAME", help="another pyramid: fpn, pan, bifpn, ...")
    model.add_argument("--channels", type=int, help="another width of the pyramid")
    model.add_argument("--head", help="fast_rcnn, or cascade: several in a row")
    recipe = parser.add_argument_group("recipe; what is not given is as in --recipe, or as the default")
    recipe.add_argument("--recipe", type=Path, metavar="JSON", help="a recipe, or the config.json of another run")
    length = recipe.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=int, help="passes over the data (default: 12, more for few images)")
    length.add_argument("--minutes", type=float, metavar="N", help="choose the number of steps to end within N minutes")
    recipe.add_argument("--batch-size", type=int, help="images a step (default: 8)")
    recipe.add_argument("--lr", type=float, help="peak learning rate (default: 0.0004)")
    recipe.add_argument("--backbone-lr-factor", type=float, help="the backbone's share of --lr (default: 0.3)")
    recipe.add_argument("--warmup-steps", type=int, help="linear warm-up (default: a tenth of the steps, at most 200)")
    recipe.add_argument("--crop", type=int, help="side of the training crop (default: 512)")
    recipe.add_argument(
        "--scale",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="scale jitter, relative to fitting the image into the crop (default: 0.8 1.6)",
    )
    recipe.add_argument("--evaluate-every", type=int, help="epochs between evaluations (default: about 10 in a run)")
    recipe.add_argument("--seed", type=int, help="of everything random (default: 0)")
    recipe.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE",
        help="any field of the recipe (optim.schedule=step ema=0.999; docs/train.md lists them), "
        "or of the model (model.rpn.anchor_scale=6; `fpnkit models show` lists them)",
    )
    add_machine_options(parser)
    return parser


FIELDS = {
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
}
"""Option -> the field that it sets."""

PARTS = ("backbone", "pyramid", "channels", "head")


def choice_of(arguments: argparse.Namespace) -> Choice:
    """Model, weights and recipe: defaults, then --recipe, then options, then --set."""
    from ..training.choice import choose

    settings = {field: getattr(arguments, option) for option, field in FIELDS.items()}
    settings = {field: value for field, value in settings.items() if value is not None}
    for word in arguments.set:
        name, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"--set expects FIELD=VALUE, got {word!r}")
        settings[name] = value
    parts = {name: getattr(arguments, name) for name in PARTS if getattr(arguments, name) is not None}
    return choose(arguments.model, arguments.weights, parts=parts, recipe=arguments.recipe, settings=settings)


def run(arguments: argparse.Namespace) -> int:
    """Train; 0 when finished, 4 when stopped with a checkpoint to resume from."""
    from ..training.distributed import join_processes, leave_processes
    from .terminal import console, errors

    began = time.monotonic()
    chosen = choice_of(arguments)
    distributed = join_processes(chosen.config.device)
    console.quiet = errors.quiet = not distributed.is_main
    try:
        code = _train(arguments, chosen, distributed, began)
    finally:
        console.quiet = errors.quiet = False
    leave_processes()  # not after an error: it would wait for the others
    return code


def _train(arguments: argparse.Namespace, chosen: Choice, distributed: Distributed, began: float) -> int:
    from ..training.run import prepare, resumes
    from .stop import StopRequest, ignore_signals
    from .terminal import console
    from .training_screen import TrainingScreen, print_dry_run

    resume = resumes(arguments.out, arguments.resume)
    if not arguments.dry_run:
        require_folder(arguments.out)
    train_data, val_data = read_training_data(arguments, max_pixels=chosen.config.max_pixels)
    minutes = arguments.minutes
    with TrainingScreen() as screen:
        trainer = prepare(
            chosen,
            train_data,
            val_data,
            arguments.out,
            seconds=None if minutes is None else 60 * minutes - (time.monotonic() - began),
            resume=resume,
            distributed=distributed,
            watcher=screen,
            worker_init=ignore_signals,
            command=sys.argv,
        )
        if arguments.dry_run:
            print_dry_run(trainer.dry_run(), trainer)
            return 0
        with StopRequest() as stop:
            finished = trainer.run(screen, should_stop=stop)
    if not finished:
        console.print(f"stopped at step {trainer.step}: the same command with --resume goes on")
        return 4
    console.print(f"done: best AP {100 * trainer.best_ap:.1f}, weights and curves in {arguments.out}", soft_wrap=True)
    return 0
