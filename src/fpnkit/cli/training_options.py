"""What the verbs that train share: options of data, backbone weights and machine, and the reading of both data sets."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..data.coco import CocoDataset


def add_data_options(parser: argparse.ArgumentParser, *, out: str, out_help: str) -> Any:
    """Training and validation data, classes and --out; the group, for more."""
    data = parser.add_argument_group("data")
    data.add_argument("--data", type=Path, required=True, metavar="JSON", help="training annotations")
    data.add_argument("--images", type=Path, required=True, metavar="DIR", help="training images")
    data.add_argument("--val", type=Path, required=True, metavar="JSON", help="validation annotations")
    data.add_argument("--val-images", type=Path, required=True, metavar="DIR", help="validation images")
    data.add_argument("--classes", nargs="+", metavar="NAME", help="keep only these classes (default: all)")
    data.add_argument("--out", type=Path, required=True, metavar=out, help=out_help)
    return data


def add_backbone_weights(group: Any) -> None:
    """--backbone-weights."""
    group.add_argument(
        "--backbone-weights",
        default="none",
        metavar="WHAT",
        help="ImageNet weights: 'timm' downloads them, a .safetensors or .pth file is read, "
        "'none' starts at random (default: %(default)s)",
    )


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """--device, --precision and --workers."""
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    machine.add_argument("--precision", choices=("bf16", "float32"), default="bf16", help="default: %(default)s")
    machine.add_argument("--workers", type=int, default=1, help="loading processes (default: %(default)s)")


def read_data(arguments: argparse.Namespace) -> tuple[CocoDataset, CocoDataset]:
    """Training and validation data of the same classes; records that are left out are named."""
    from ..data.coco import read_coco
    from .terminal import warn_of_problems

    train_data = read_coco(arguments.data, arguments.images, classes=arguments.classes)
    val_data = read_coco(arguments.val, arguments.val_images, classes=train_data.classes)
    for dataset in (train_data, val_data):
        warn_of_problems(dataset)
    return train_data, val_data
