"""fpnkit convert: annotated images in another format."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..data.formats import by_name
from .data_options import FORMATS, add_choice, add_images_dir, read_splits
from .photos import add_max_pixels

EPILOG = """\
examples:
  fpnkit convert cells/ --to coco --out cells-coco        a VOC folder: every split
  fpnkit convert cells:train --to yolo --out cells-yolo   one split
  fpnkit convert train.json --to voc --out train-voc

writes:
{writes}

{losses}
Bad records are named and left out (exit code 4), or stop it with --strict.
"""


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    formats = by_name()
    titles = [each.title for each in formats]
    writes = "\n".join(f"  {each.name:<7}{each.writes}" for each in formats)
    losses = "\n".join(f"{each.loses}." for each in formats if each.loses)
    parser = verbs.add_parser(
        "convert",
        help=f"{', '.join(titles[:-1])} and {titles[-1]} into each other",
        description="Write annotated images in another format, with copies of the images.",
        epilog=EPILOG.format(writes=writes, losses=losses),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", metavar="SRC", help=FORMATS)
    parser.add_argument("--to", choices=[each.name for each in formats], required=True, help="the format to write")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    add_images_dir(parser)
    add_choice(parser)
    add_max_pixels(parser)
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
        max_pixels=arguments.max_pixels,
    )
    with progress_bar() as progress:
        task = progress.add_task("copying images", total=sum(len(each.records) for each in splits.values()))
        done = convert(splits, arguments.to, arguments.out, on_image=lambda: progress.advance(task))
    console.print(f"{done.images} images with {done.boxes} boxes in {arguments.out}, as {arguments.to}", soft_wrap=True)
    if done.left_out:
        console.print(f"{done.left_out} boxes left out: {arguments.to} has no place for them")
    return 4 if any(each.problems for each in splits.values()) else 0
