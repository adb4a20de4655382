"""fpnkit predict: boxes for photographs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError
from .output import require_folder
from .photos import (
    Place,
    add_compile,
    add_engine,
    add_limits,
    add_options,
    each_photo,
    find_places,
    one_by_one,
    require_score,
)

if TYPE_CHECKING:
    from rich.table import Table

    from ..inference.predictor import Picture, Predictor, Result

EPILOG = """\
examples:
  fpnkit predict photo.jpg                          people, with the shipped model
  fpnkit predict photo.jpg holiday/ --out found     files and folders
  fpnkit predict holiday/ --model runs/mine --min-score 0.3 --format coco
  fpnkit predict holiday/ --engine openvino         the same boxes, several times as fast on most CPUs
  fpnkit predict crowd.jpg --scales 1,2             also at twice the size: finds more small objects

writes to --out:
  NAME.annotated.jpg  each image with its boxes, coloured by pyramid level; folders keep their tree, files that
                      are not fpnkit's own are never overwritten
  predictions.json    [{"image", "width", "height", "detections": [{"label", "score", "box_xyxy", "level"}]}]
                      with --format coco: COCO results; the images and categories of their ids are in images.json

Box corners are pixels of the image as a viewer shows it (EXIF orientation applied). "level" is the k of the
pyramid level P_k that the object was read from, in the pass that found it. Exit code 4 when some images
could not be read.
"""

FORMATS = ("json", "coco")

ENDING = ".annotated.jpg"

MANY = 64
"""Photographs that are worth a measurement before."""


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "predict",
        help="find objects in images",
        description="Find objects in images and folders.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, out="fpnkit-out")
    parser.add_argument(
        "--format", choices=FORMATS, default="json", help="form of predictions.json (default: %(default)s)"
    )
    parser.add_argument(
        "--scales",
        type=_numbers,
        default=(1.0,),
        metavar="A,B,..",
        help="factors of the model's image size, one pass for each, all detections merged: 1,2 finds more small "
        "objects at five times the work (default: 1)",
    )
    add_engine(parser)
    add_compile(parser)
    add_limits(parser)
    parser.add_argument(
        "--streams",
        type=int,
        metavar="N",
        help="passes at a time, of engines that run a graph (default: 1; the fastest number is measured for "
        f"{MANY} images and more)",
    )
    parser.add_argument(
        "--batch", type=int, metavar="N", help="images of one size that a pass takes (default: as for --streams)"
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Predict; 0 when every image was read, 4 when some were not, 3 when none was."""
    require_score(arguments.min_score)
    for option, number in (("--streams", arguments.streams), ("--batch", arguments.batch)):
        if number is not None and number < 1:
            raise ConfigError(f"{option} must be 1 or more, got {number}")
    require_folder(arguments.out)
    from ..data.samples import sample_images
    from ..inference.predictor import load
    from ..inference.throughput import BatchPlan, choose_batch_plan
    from .terminal import console, tell

    places, unusable = find_places(arguments.paths, arguments.out, ENDING)

    def open_with(streams: int) -> Predictor:
        return load(
            arguments.model,
            device=arguments.device,
            precision=arguments.precision,
            scales=arguments.scales,
            engine=arguments.engine,
            streams=streams,
            compiled=arguments.compile,
            detections=arguments.detections,
            max_pixels=arguments.max_pixels,
            on_message=tell,
        )

    if len(places) >= MANY and None in (arguments.streams, arguments.batch):
        predictor, plan = choose_batch_plan(
            open_with, sample_images()[0], streams=arguments.streams, batch=arguments.batch
        )
    else:
        plan = BatchPlan(arguments.streams or 1, arguments.batch or 1)
        predictor = open_with(plan.streams)
    if arguments.engine or predictor.engine.name != "torch":
        tell(f"engine: {predictor.engine.name}, streams: {plan.streams}, batch: {plan.batch}")

    def process(group: Sequence[Place]) -> list[dict[str, Any] | DataError]:
        return _find_and_draw(predictor, group, arguments.min_score)

    found = each_photo(places, unusable, process, doing="predicting", workers=plan.streams + 1, batch=plan.batch)
    _write(arguments, predictor.classes, found)
    console.print(_table([(Path(entry["image"]).name, entry["detections"]) for entry in found]))
    count = sum(len(entry["detections"]) for entry in found)
    console.print(
        f"{count} objects in {len(found)} images; pictures and predictions.json in {arguments.out}", soft_wrap=True
    )
    return 4 if unusable else 0


def _find_and_draw(predictor: Predictor, group: Sequence[Place], min_score: float) -> list[dict[str, Any] | DataError]:
    """Find and draw; images of one size are in one pass, so that none is padded for another's sake."""
    from ..data.images import read_image

    pictures = one_by_one(lambda path, _: read_image(path, max_pixels=predictor.max_pixels))(group)
    seen: list[dict[str, Any] | DataError | None] = [each if isinstance(each, DataError) else None for each in pictures]
    by_size: dict[tuple[int, int], list[tuple[int, Picture]]] = {}
    for number, picture in enumerate(pictures):
        if not isinstance(picture, DataError):
            size = predictor.preprocess.resized_hw(picture.height, picture.width)
            by_size.setdefault(size, []).append((number, picture))
    for same in by_size.values():
        results = predictor.batch([picture for _, picture in same], min_score=min_score)
        for (number, _), result in zip(same, results, strict=True):
            path, drawing = group[number]
            result.save(drawing)
            seen[number] = _entry(path, result)
    return [each for each in seen if each is not None]


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(each) for each in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers with commas between, like 0.5,1,2; got {text!r}") from None


def _entry(path: Path, result: Result) -> dict[str, Any]:
    return {
        "image": str(path),
        "width": result.size_wh[0],
        "height": result.size_wh[1],
        "detections": result.detections(),
    }


def _table(found: list[tuple[str, list[dict[str, Any]]]], *, most: int = 20) -> Table:
    """Image, label, score, box and pyramid level of the strongest detections of each image."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("image", "label"):
        table.add_column(name, overflow="fold")
    for name in ("score", "box xyxy (pixels)", "size", "level"):
        table.add_column(name, justify="right")
    for name, rows in found:
        for place, row in enumerate(rows[:most]):
            left, top, right, bottom = row["box_xyxy"]
            table.add_row(
                name if place == 0 else "",
                row["label"],
                f"{row['score']:.2f}",
                f"{left:.0f} {top:.0f} {right:.0f} {bottom:.0f}",
                f"{right - left:.0f} x {bottom - top:.0f}",
                f"P{row['level']}" if "level" in row else "",
            )
        if len(rows) > most or not rows:
            table.add_row(name if not rows else "", f"{len(rows) - most} more" if rows else "nothing found")
    return table


def _write(arguments: argparse.Namespace, classes: tuple[str, ...], found: list[dict[str, Any]]) -> None:
    from ..files import write_json

    if arguments.format == "json":
        write_json(arguments.out / "predictions.json", found)
        return
    images = [
        {"id": number, "file_name": entry["image"], "width": entry["width"], "height": entry["height"]}
        for number, entry in enumerate(found, start=1)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    write_json(arguments.out / "images.json", {"images": images, "annotations": [], "categories": categories})
    results = [
        _coco(number, detection, classes)
        for number, entry in enumerate(found, start=1)
        for detection in entry["detections"]
    ]
    write_json(arguments.out / "predictions.json", results)


def _coco(image_id: int, detection: dict[str, Any], classes: tuple[str, ...]) -> dict[str, Any]:
    left, top, right, bottom = detection["box_xyxy"]
    return {
        "image_id": image_id,
        "category_id": classes.index(detection["label"]) + 1,
        "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
        "score": detection["score"],
        **{name: value for name, value in detection.items() if name not in ("label", "score", "box_xyxy")},
    }
