"""fpnkit import: a checkpoint of torchvision or detectron2."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

EPILOG = """\
examples:
  fpnkit import fasterrcnn_resnet50_fpn_coco-258fb6c6.pth --from torchvision --out coco.safetensors
  fpnkit import model_final.pth --from detectron2 --classes cat dog --out pets.safetensors
  fpnkit predict photo.jpg --model coco.safetensors
  fpnkit train --from coco.safetensors --data mine/ --out run

Faster R-CNN on ResNet-50 or ResNet-101 with FPN. Files of tensors are read (.pth, .safetensors), the tensors at the
top or under 'model'; a pickle (.pkl) is never opened, the error says how to make a file of tensors of it.
"""


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "import",
        help="a checkpoint of torchvision or detectron2",
        description="Turn a checkpoint of torchvision or detectron2 into weights that every verb takes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="a .pth or .safetensors file")
    add_library(parser, "--from", "library", "where it comes from")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="of the checkpoint, in its order (default: COCO's, where 80 fit)"
    )
    parser.add_argument(
        "--rgb",
        action="store_true",
        help="detectron2: a model on torchvision's ResNet (STRIDE_IN_1X1 False, FORMAT RGB), not on Caffe's",
    )
    parser.add_argument(
        "--norm-eps",
        type=float,
        metavar="EPS",
        help="of its batch norms (default: 1e-5, for torchvision 0: its released detectors and all that start from "
        "them; 1e-5 where only the backbone was released)",
    )
    return parser


def add_library(parser: argparse.ArgumentParser, option: str, name: str, meaning: str) -> None:
    """Declare the option that names the other library."""
    parser.add_argument(option, dest=name, choices=("torchvision", "detectron2"), required=True, help=meaning)


def run(arguments: argparse.Namespace) -> int:
    """Import; 0 when done."""
    from ..errors import ConfigError
    from ..weights.interop import import_weights
    from .terminal import console

    if arguments.rgb and arguments.library != "detectron2":
        raise ConfigError("--rgb is for detectron2: torchvision's models read RGB anyway")
    if arguments.out.suffix != ".safetensors":
        raise ConfigError(f"--out must end in .safetensors, got {arguments.out}")
    card = import_weights(
        arguments.checkpoint,
        arguments.library,
        arguments.out,
        classes=arguments.classes,
        rgb=arguments.rgb,
        norm_eps=arguments.norm_eps,
    )
    console.print(f"{arguments.out}: {card.name}, {len(card.classes)} classes", soft_wrap=True)
    return 0
