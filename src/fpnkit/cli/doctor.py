"""fpnkit doctor: check annotated images before a training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .data_options import FORMATS, add_choice, add_images_dir, read_splits
from .photos import add_max_pixels

if TYPE_CHECKING:
    from ..data.annotated import AnnotatedImages
    from ..doctor.report import DataReport

EPILOG = """\
examples:
  fpnkit doctor cells/                                       VOC or YOLO, all splits
  fpnkit doctor train.json --val val.json --html report.html
  fpnkit doctor cells/ --json report.json --model faster_rcnn_lite0_fpn

Names every bad record with file, record and reason; counts classes, sizes and levels; says which boxes no anchor of
the model matches and which anchors would; finds images that are in two splits. A model without anchors has no such
section. Exit code 0 when no record is bad, 3 when some are. `fpnkit train` checks the same records before it begins,
and leaves the bad ones out.
"""


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "doctor",
        help="what is wrong with your data",
        description="Check annotated images before a training.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", metavar="DATA", help=FORMATS)
    parser.add_argument("--val", metavar="DATA", help="validation data, where DATA has no splits")
    add_images_dir(parser)
    parser.add_argument("--val-images", type=Path, metavar="DIR", help="the same for --val")
    add_choice(parser)
    add_max_pixels(parser)
    parser.add_argument(
        "--model",
        default="coco80",
        metavar="MODEL",
        help="whose anchors: a preset, 'coco80' (which `fpnkit train` starts from) or 'default', a run's folder, or a "
        ".safetensors file (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report here")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with pictures here")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Examine; 0 when all records are good, 3 when some are bad."""
    from ..doctor.page import as_html
    from ..doctor.report import comparisons, examine, spec_of
    from ..files import write_bytes, write_json
    from .terminal import console, progress_bar

    spec_of(arguments.model)  # a wrong name is better known before the data is read
    try:
        splits = _splits(arguments)
    except DataError as error:
        if arguments.json:
            problem = {"file": arguments.data, "record": "file", "reason": str(error)}
            write_json(arguments.json, {"images": 0, "boxes": 0, "problems": [problem]})
        raise
    limit = arguments.max_pixels
    with progress_bar() as progress:
        task = progress.add_task("comparing splits", total=comparisons(splits))
        report = examine(
            arguments.data, splits, arguments.model, max_pixels=limit, on_image=lambda: progress.advance(task)
        )
    _print(report)
    if arguments.json:
        write_json(arguments.json, report.as_plain())
    if arguments.html:
        page = as_html(report, splits, max_pixels=limit)
        write_bytes(arguments.html, page.encode("utf-8", errors="replace"))
        console.print(f"a page with pictures in {arguments.html}", soft_wrap=True)
    return 3 if report.problems else 0


def _splits(arguments: argparse.Namespace) -> dict[str, AnnotatedImages]:
    choice: dict[str, Any] = {name: getattr(arguments, name) for name in ("classes", "rename", "strict", "max_pixels")}
    splits = read_splits(arguments.data, images_dir=arguments.images, quiet=True, **choice)
    if arguments.val:
        val = read_splits(arguments.val, images_dir=arguments.val_images, quiet=True, **choice)
        splits |= (
            {"val": next(iter(val.values()))} if len(val) == 1 else {f"val {name}": each for name, each in val.items()}
        )
    return splits


def _print(report: DataReport) -> None:
    """The report, most urgent first."""
    from rich.table import Table

    from .terminal import SHOWN_ROWS, console
    from .wording import in_options

    for problem in report.problems[:SHOWN_ROWS]:
        console.print(f"bad: {in_options(str(problem))}", style="yellow", soft_wrap=True)
    if len(report.problems) > SHOWN_ROWS:
        console.print(f"bad: {len(report.problems) - SHOWN_ROWS} more records (--json and --html list them)")
    table = Table(title=f"{report.images} images, {report.boxes} boxes, {len(report.problems)} bad records")
    for name in ("split", "images", "without a box", "boxes", "small", "medium", "large"):
        table.add_column(name, justify="left" if name == "split" else "right")
    for name, each in report.splits.items():
        table.add_row(name, *map(str, (each.images, each.background, each.boxes, *each.sizes.values())))
    console.print(table)
    _print_bars("class", dict(list(report.classes.items())[:SHOWN_ROWS]))
    if report.anchors:
        _print_bars(f"best anchor of {report.anchors.model}", report.anchors.levels)
        console.print(f"{report.anchors.share:.1%} of the boxes are matched by an anchor at IoU 0.5", soft_wrap=True)
        for line in report.anchors.advice:
            console.print(f"advice: {line}", soft_wrap=True)
    for pair in report.duplicates[:SHOWN_ROWS]:
        console.print(f"in two splits: {pair.first} and {pair.second}", style="yellow", soft_wrap=True)


def _print_bars(title: str, counts: dict[str, int]) -> None:
    from rich.table import Table
    from rich.text import Text

    from .terminal import console

    table, largest = Table(box=None), max(counts.values(), default=0) or 1
    table.add_column(title)
    table.add_column("boxes", justify="right")
    table.add_column("")
    for name, count in counts.items():
        table.add_row(Text(name), str(count), Text("█" * round(30 * count / largest), style="blue"))
    console.print(table)
