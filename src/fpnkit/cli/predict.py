"""fpnkit predict: boxes for photographs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError

if TYPE_CHECKING:
    from ..engine.predict import Result

EPILOG = """\
examples:
  fpnkit predict photo.jpg                          people, with the shipped model
  fpnkit predict photo.jpg holiday/ --out found     files and folders
  fpnkit predict holiday/ --model runs/mine --min-score 0.3 --format coco

writes to --out:
  NAME.annotated.jpg  each image with its boxes, coloured by pyramid level; folders keep their tree
  predictions.json    [{"image", "width", "height", "detections": [{"label", "score", "box_xyxy", "level"}]}]
                      with --format coco: COCO results, whose image ids are in images.json beside them

Box corners are pixels of the image as a viewer shows it (EXIF orientation applied). "level" is the k of the
pyramid level P_k that the object was read from. Exit code 4 when some images could not be read.
"""

FORMATS = ("json", "coco")


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "predict",
        help="find objects in images",
        description="Find objects in images and folders.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="image files and folders")
    parser.add_argument("--model", default="default", help="'default', a run's folder or a .safetensors file")
    parser.add_argument("--min-score", type=float, default=0.5, help="leave out weaker boxes (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("fpnkit-out"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--format", choices=FORMATS, default="json", help="of predictions.json (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="default: %(default)s")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Predict; 0 when every image was read, 4 when some were not, 3 when none was."""
    if not 0 <= arguments.min_score <= 1:
        raise ConfigError(f"--min-score must lie in 0..1, got {arguments.min_score}")
    require_folder(arguments.out)
    from ..data.images import find_images
    from ..engine.predict import load
    from .terminal import console, detections_table, errors, progress_bar

    places = list(_named(arguments.paths, find_images))
    predictor = load(arguments.model, device=arguments.device, precision=arguments.precision)
    found: list[dict[str, Any]] = []
    unreadable: list[DataError] = []
    with progress_bar() as progress:
        for path, name in progress.track(places, description="predicting"):
            try:
                result = predictor(path, min_score=arguments.min_score)
            except DataError as error:
                unreadable.append(error)
                if len(places) > 1:
                    errors.print(f"skipped: {error}", style="yellow", soft_wrap=True)
                continue
            target = arguments.out / name.with_name(f"{name.name}.annotated.jpg")
            target.parent.mkdir(parents=True, exist_ok=True)
            result.save(target)
            found.append(_entry(path, result))
    if not found:
        others = f" (none of {len(places)} images could be read)" if len(places) > 1 else ""
        raise DataError(f"{unreadable[0]}{others}")
    _write(arguments, predictor.classes, found)
    console.print(detections_table([(Path(entry["image"]).name, entry["detections"]) for entry in found]))
    count = sum(len(entry["detections"]) for entry in found)
    console.print(f"{count} objects in {len(found)} images; pictures and predictions.json in {arguments.out}")
    return 4 if unreadable else 0


def _entry(path: Path, result: Result) -> dict[str, Any]:
    return {
        "image": str(path),
        "width": result.size[0],
        "height": result.size[1],
        "detections": result.detections(),
    }


def _named(paths: list[Path], find_images: Any) -> list[tuple[Path, Path]]:
    """Each image with the name of its picture: inside a folder its relative path, and no name twice."""
    named: list[tuple[Path, Path]] = []
    taken: set[Path] = set()
    for given in paths:
        for path in find_images([given]):
            name = path.relative_to(given).with_suffix("") if given.is_dir() else Path(path.stem)
            unique, number = name, 2
            while unique in taken:
                unique, number = name.with_name(f"{name.name}-{number}"), number + 1
            taken.add(unique)
            named.append((path, unique))
    return named


def _write(arguments: argparse.Namespace, classes: tuple[str, ...], found: list[dict[str, Any]]) -> None:
    from ..engine.checkpoint import write_json

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
    }


def require_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {path}: cannot be made a folder: {error.strerror}") from None
