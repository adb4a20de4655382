"""fpnkit predict: boxes for photographs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError
from .output import require_folder

if TYPE_CHECKING:
    from ..engine.predict import Result

EPILOG = """\
examples:
  fpnkit predict photo.jpg                          people, with the shipped model
  fpnkit predict photo.jpg holiday/ --out found     files and folders
  fpnkit predict holiday/ --model runs/mine --min-score 0.3 --format coco

writes to --out:
  NAME.annotated.jpg  each image with its boxes, coloured by pyramid level; folders keep their tree, files that
                      are not fpnkit's own are never overwritten
  predictions.json    [{"image", "width", "height", "detections": [{"label", "score", "box_xyxy", "level"}]}]
                      with --format coco: COCO results, whose image ids are in images.json beside them

Box corners are pixels of the image as a viewer shows it (EXIF orientation applied). "level" is the k of the
pyramid level P_k that the object was read from. Exit code 4 when some images could not be read.
"""

FORMATS = ("json", "coco")

SUFFIX = ".annotated.jpg"


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
    from ..engine.predict import load
    from .terminal import console, detections_table, progress_bar

    places, unusable = _places(arguments.paths, arguments.out)
    several = len(places) + len(unusable) > 1
    if several:
        for error in unusable:
            _warn(error)
    predictor = load(arguments.model, device=arguments.device, precision=arguments.precision)
    found: list[dict[str, Any]] = []
    with progress_bar() as progress:
        for path, picture in progress.track(places, description="predicting"):
            try:
                result = predictor(path, min_score=arguments.min_score)
            except DataError as error:
                unusable.append(error)
                if several:
                    _warn(error)
                continue
            result.save(picture)
            found.append(_entry(path, result))
    if not found:
        others = f" (none of {len(unusable)} images could be read)" if several else ""
        raise DataError(f"{unusable[0]}{others}")
    _write(arguments, predictor.classes, found)
    console.print(detections_table([(Path(entry["image"]).name, entry["detections"]) for entry in found]))
    count = sum(len(entry["detections"]) for entry in found)
    console.print(
        f"{count} objects in {len(found)} images; pictures and predictions.json in {arguments.out}", soft_wrap=True
    )
    return 4 if unusable else 0


def _places(paths: list[Path], out: Path) -> tuple[list[tuple[Path, Path]], list[DataError]]:
    """Each image with the file of its picture, folders' in the same tree; and paths without any image."""
    from ..data.images import find_images

    places: list[tuple[Path, Path]] = []
    unusable: list[DataError] = []
    taken: set[str] = set()
    for given in paths:
        try:
            images = [path for path in find_images([given]) if path == given or not _is_own(path)]
            if not images:
                raise DataError(f"{given}: the folder holds nothing but pictures that fpnkit made")
            for path in images:
                name = Path(path.name) if path == given else path.relative_to(given)
                places.append((path, _free(out / name.with_suffix(""), taken)))
        except DataError as error:
            unusable.append(error)
    return places, unusable


def _free(stem: Path, taken: set[str]) -> Path:
    """STEM.annotated.jpg, numbered when another image has it or it is not fpnkit's own to overwrite."""
    number, picture = 1, stem.with_name(stem.name + SUFFIX)
    while str(picture).casefold() in taken or (os.path.lexists(picture) and not _is_own(picture)):
        number += 1
        picture = stem.with_name(f"{stem.name}-{number}{SUFFIX}")
    taken.add(str(picture).casefold())
    return picture


def _is_own(path: Path) -> bool:
    from ..engine.draw import drawn_here

    return path.name.endswith(SUFFIX) and not path.is_symlink() and drawn_here(path)


def _warn(error: DataError) -> None:
    from .terminal import errors

    errors.print(f"skipped: {' '.join(str(error).split())}", style="yellow", soft_wrap=True)


def _entry(path: Path, result: Result) -> dict[str, Any]:
    return {
        "image": str(path),
        "width": result.size[0],
        "height": result.size[1],
        "detections": result.detections(),
    }


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
