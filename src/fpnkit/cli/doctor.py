"""fpnkit doctor: what is wrong with annotated images, before a training finds out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .data_options import FORMATS, add_choice, add_images_dir, read_splits

if TYPE_CHECKING:
    from ..data.annotated import AnnotatedImages

EPILOG = """\
examples:
  fpnkit doctor cells/                                       VOC or YOLO, all splits
  fpnkit doctor train.json --val val.json --html report.html
  fpnkit doctor cells/ --json report.json --model faster_rcnn_lite0_fpn

Names every bad record with file, record and reason; counts classes, sizes and levels; says which boxes no anchor of
the model matches and which anchors would; finds images that are in two splits. Exit code 0 when no record is bad, 3
when some are. `fpnkit train` checks the same records before it begins, and leaves the bad ones out.
"""


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "doctor",
        help="what is wrong with your data",
        description="Check annotated images before they cost a training.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", metavar="DATA", help=FORMATS)
    parser.add_argument("--val", metavar="DATA", help="validation data, where DATA has no splits")
    add_images_dir(parser)
    parser.add_argument("--val-images", type=Path, metavar="DIR", help="the same for --val")
    add_choice(parser)
    parser.add_argument("--model", default="faster_rcnn_r50_fpn", help="whose anchors (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report here")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with pictures here")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Examine; 0 when all records are good, 3 when some are bad."""
    from .terminal import console, doctor_report, progress_bar

    try:
        splits = _splits(arguments)
    except DataError as error:
        if arguments.json:
            problem = {"file": arguments.data, "record": "file", "reason": str(error)}
            arguments.json.write_text(json.dumps({"images": 0, "boxes": 0, "problems": [problem]}, indent=1))
        raise
    from ..doctor.checkup import comparisons, examine
    from ..doctor.page import as_html
    from ..files import write_bytes, write_json

    with progress_bar() as progress:
        task = progress.add_task("comparing splits", total=comparisons(splits))
        checkup = examine(arguments.data, splits, arguments.model, on_image=lambda: progress.advance(task))
    doctor_report(checkup)
    if arguments.json:
        write_json(arguments.json, checkup.as_plain())
    if arguments.html:
        write_bytes(arguments.html, as_html(checkup, splits).encode("utf-8", errors="replace"))
        console.print(f"a page with pictures in {arguments.html}", soft_wrap=True)
    return 3 if checkup.problems else 0


def _splits(arguments: argparse.Namespace) -> dict[str, AnnotatedImages]:
    choice: dict[str, Any] = {name: getattr(arguments, name) for name in ("classes", "rename", "strict")}
    splits = read_splits(arguments.data, images_dir=arguments.images, quiet=True, **choice)
    if arguments.val:
        val = read_splits(arguments.val, images_dir=arguments.val_images, quiet=True, **choice)
        splits |= (
            {"val": next(iter(val.values()))} if len(val) == 1 else {f"val {name}": each for name, each in val.items()}
        )
    return splits
