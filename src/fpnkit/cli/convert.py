"""fpnkit convert: annotated images in another format."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .data_options import FORMATS, add_choice, add_images_dir, read_splits

EPILOG = """\
examples:
  fpnkit convert cells/ --to coco --out cells-coco        a VOC folder: every split
  fpnkit convert cells:train --to yolo --out cells-yolo   one split
  fpnkit convert train.json --to voc --out train-voc

What a format has no place for is left out: VOC holds neither ids, areas, masks nor boxes of one pixel's width, and
crowds become 'difficult'; YOLO holds boxes alone. Bad records are named and left out (exit
code 4), or stop it with --strict.
"""


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "convert",
        help="COCO, Pascal VOC and YOLO into each other",
        description="Write annotated images in another format, with copies of the images.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", metavar="SRC", help=FORMATS)
    parser.add_argument("--to", choices=("coco", "voc", "yolo"), required=True, help="the format to write")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    add_images_dir(parser)
    add_choice(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Convert; 0 when all was written, 4 when bad records were left out."""
    from ..data.convert import convert
    from .terminal import console, progress_bar

    splits = read_splits(
        arguments.data,
        images_dir=arguments.images,
        classes=arguments.classes,
        rename=arguments.rename,
        strict=arguments.strict,
    )
    with progress_bar() as progress:
        task = progress.add_task("copying images", total=sum(len(each.records) for each in splits.values()))
        done = convert(splits, arguments.to, arguments.out, on_image=lambda: progress.advance(task))
    console.print(f"{done.images} images with {done.boxes} boxes in {arguments.out}, as {arguments.to}", soft_wrap=True)
    if done.left_out:
        console.print(f"{done.left_out} boxes left out: {arguments.to} has no place for them")
    return 4 if any(each.problems for each in splits.values()) else 0
