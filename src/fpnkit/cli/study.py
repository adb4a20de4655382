"""fpnkit study: the paper's tables on your own data."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import ConfigError
from .data_options import add_machine_options, add_training_data, read_training_data
from .output import require_folder

NAMES = ("table1", "table2", "table3", "necks")

EPILOG = """\
studies:
  table1   proposals (RPN): C4, C5, FPN, bottom-up only, top-down only, finest level only
  table2   the same six as Fast R-CNN, on the fixed proposals of an RPN on an FPN
  table3   Faster R-CNN: C4, C5, FPN
  necks    Faster R-CNN: FPN, FPN with residual connections, PAN, BiFPN

examples:
  fpnkit study table1 --data train.json --images train/ --val val.json --val-images val/ --out studies/table1
  fpnkit study necks ... --classes person --seeds 3 --budget 2000 --out studies/necks
  fpnkit study table1 ... --rows c d --budget 5000 --out studies/longer

Every row has the same backbone, budget and data order. Rows that are done are skipped: after Ctrl-C the same command
goes on where it stopped (exit code 4), after a crash from the last minute. Writes table.md, table.png (the paper's
figures beside ours) and results.json.
"""


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "study",
        help="the paper's tables on your data",
        description="Train and compare the pyramids of the FPN paper, and its successors, at equal budget.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", choices=NAMES, metavar="STUDY", help=", ".join(NAMES))
    add_training_data(parser, out="DIR", out_help="the study's folder")
    budget = parser.add_argument_group("budget, the same for every row")
    budget.add_argument("--budget", type=int, default=500, metavar="STEPS", help="optimiser steps (default: 500)")
    budget.add_argument("--rows", nargs="+", metavar="ROW", help="only these rows, by letter or name (default: all)")
    budget.add_argument("--seeds", type=int, default=2, help="trainings of each row (default: 2)")
    budget.add_argument("--batch-size", type=int, default=4, help="images a step (default: 4)")
    budget.add_argument("--side", type=int, default=320, help="longer side of the images, pixels (default: 320)")
    budget.add_argument("--lr", type=float, default=4e-4, help="peak learning rate (default: %(default)s)")
    model = parser.add_argument_group("model, the same for every row")
    model.add_argument("--backbone", default="tf_efficientnet_lite0", help="of timm (default: %(default)s)")
    model.add_argument(
        "--backbone-weights",
        default="random",
        metavar="WHAT",
        help="'timm' for ImageNet weights, which it downloads, the .safetensors or .pth file of a classifier, or "
        "'random' (default: %(default)s)",
    )
    model.add_argument("--channels", type=int, default=64, help="d, width of the pyramids (default: 64)")
    add_machine_options(parser)
    parser.set_defaults(device="auto", precision="bf16", workers=1)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the study; 0 when done, 4 when stopped: the same command goes on."""
    from ..backbones import make_backbone
    from ..pictures.plots import require_matplotlib
    from ..studies import STUDIES, Stopped, Study, StudyConfig, run_study
    from ..training.optimize import OptimizerConfig
    from ..weights import InitialWeights
    from .stop import StopRequest, ignore_signals
    from .study_screen import StudyScreen
    from .terminal import console

    require_matplotlib()
    weights = InitialWeights.parse(arguments.backbone_weights)
    config = StudyConfig(
        steps=arguments.budget,
        seeds=arguments.seeds,
        side=arguments.side,
        optim=OptimizerConfig(
            batch_size=arguments.batch_size, lr=arguments.lr, precision=arguments.precision, warmup_steps=50
        ),
        backbone=arguments.backbone,
        frozen_stages=0 if weights.kind == "random" else StudyConfig.frozen_stages,
        channels=arguments.channels,
        device=arguments.device,
        workers=arguments.workers,
    )
    if arguments.out.is_dir() and any(arguments.out.iterdir()) and not (arguments.out / "settings.json").exists():
        raise ConfigError(f"{arguments.out} holds something that is no study: pass another --out")
    backbone = config.backbone_config()
    weights.fill_backbone(make_backbone(backbone), backbone)  # what does not fit is better known before data is read
    require_folder(arguments.out)
    train_data, val_data = read_training_data(arguments)
    study = Study(
        table=STUDIES[arguments.study].only(arguments.rows),
        config=config,
        train_data=train_data,
        val_data=val_data,
        out=arguments.out,
        weights=weights,
    )
    try:
        with StudyScreen() as screen, StopRequest() as stop:
            run_study(study, screen, should_stop=stop, worker_init=ignore_signals)
    except Stopped:
        console.print("stopped: the same command goes on")
        return 4
    console.print((arguments.out / "table.md").read_text(), soft_wrap=True)
    console.print(f"table.md, table.png and results.json in {arguments.out}", soft_wrap=True)
    return 0
