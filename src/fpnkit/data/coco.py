"""Read COCO JSON annotations, and say of every bad record what is wrong with it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import DataError

BORDER_TOLERANCE = 2.0
"""Pixels by which a box may stand out of its image, as rounding in real data sets makes it; it is clipped."""

MAX_BAD_SHARE = 0.001
"""Large real data sets hold a few broken records; up to this share they are reported and left out, above it
the file is refused."""


@dataclass(frozen=True)
class Problem:
    """One bad record: which file, which record in it, and what is wrong."""

    file: str
    record: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.record}: {self.reason}"


@dataclass(frozen=True)
class Record:
    """One image and its objects, in original pixels.

    Attributes:
        image_id: the data set's own id.
        path: the image file.
        width, height: pixels, as annotated.
        boxes_xyxy: M boxes, inside the image.
        labels: M indices into the data set's classes.
        crowd: M flags.
    """

    image_id: int
    path: Path
    width: int
    height: int
    boxes_xyxy: tuple[tuple[float, float, float, float], ...]
    labels: tuple[int, ...]
    crowd: tuple[bool, ...]


@dataclass(frozen=True)
class CocoDataset:
    """Checked annotations.

    Attributes:
        records: images in the file's order, those without objects among them.
        classes: names, by label.
        category_ids: the file's category id of each label.
        annotations_path: where they came from.
        problems: bad records that were left out.
    """

    records: tuple[Record, ...]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    annotations_path: Path
    problems: tuple[Problem, ...] = ()


def read_coco(
    path: str | Path,
    images_dir: str | Path,
    *,
    classes: Sequence[str] | None = None,
    max_bad_share: float = MAX_BAD_SHARE,
) -> CocoDataset:
    """Read and check a COCO file.

    Args:
        path: the annotation JSON.
        images_dir: folder that `file_name` is relative to.
        classes: names to keep, in the order of their labels; all by default.
        max_bad_share: bad records up to this share of all are left out and listed in `problems`; more are an error.
    Returns:
        The data set; images without a kept object stay, as background.
    Raises:
        DataError: not readable as COCO, or too many bad records; the first is named, with the number of others.
    """
    path, images_dir = Path(path), Path(images_dir)
    content = _load(path)
    problems: list[Problem] = []
    names = _categories(content["categories"], path, problems)
    kept = _select(names, classes, path)
    images = _images(content["images"], path, images_dir, problems)
    objects = _annotations(content["annotations"], path, images, names, kept, problems)
    total = sum(len(content[key]) for key in ("images", "annotations", "categories"))
    if len(problems) > max_bad_share * total:
        others = f" (the first of {len(problems)} bad records)" if len(problems) > 1 else ""
        raise DataError(f"{problems[0]}{others}")
    records = tuple(_record(image_id, image, objects[image_id]) for image_id, image in images.items())
    labels = tuple(names[category_id] for category_id in kept)
    return CocoDataset(records, labels, tuple(kept), path, tuple(problems))


def _load(path: Path) -> dict[str, list[Any]]:
    if not path.is_file():
        raise DataError(f"{path}: no such annotation file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a COCO object at the top, got a {type(content).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f"{path}: expected a list under {key!r}: this is not a COCO detection file")
    if not content["images"]:
        raise DataError(f"{path}: it lists no images")
    return content


def _categories(entries: list[Any], path: Path, problems: list[Problem]) -> dict[int, str]:
    names: dict[int, str] = {}
    for place, entry in enumerate(entries):
        record = f"category {_id_or_place(entry, place)}"
        if not _is_id(entry) or not isinstance(entry.get("name"), str) or not entry["name"]:
            problems.append(Problem(str(path), record, "expected an integer id and a name"))
        elif entry["id"] in names:
            problems.append(Problem(str(path), record, "this category id is used twice"))
        else:
            names[entry["id"]] = entry["name"]
    return names


def _select(names: dict[int, str], classes: Sequence[str] | None, path: Path) -> dict[int, int]:
    """Category id -> label."""
    if not names:
        raise DataError(f"{path}: it has no usable categories")
    if classes is None:
        return {category_id: label for label, category_id in enumerate(sorted(names))}
    by_name = {name: category_id for category_id, name in names.items()}
    for name in classes:
        if name not in by_name:
            raise DataError(f"{path}: there is no class {name!r}: the classes are {', '.join(sorted(by_name))}")
    return {by_name[name]: label for label, name in enumerate(classes)}


def _images(entries: list[Any], path: Path, images_dir: Path, problems: list[Problem]) -> dict[int, dict[str, Any]]:
    images: dict[int, dict[str, Any]] = {}
    present: dict[str, set[str]] = {}
    for place, entry in enumerate(entries):
        record = f"image {_id_or_place(entry, place)}"
        reason = _image_problem(entry, images)
        if reason is None and not _exists(images_dir, entry["file_name"], present):
            reason = f"{entry['file_name']} is not in {images_dir}"
        if reason is None:
            images[entry["id"]] = {**entry, "path": images_dir / entry["file_name"]}
        else:
            problems.append(Problem(str(path), record, reason))
    return images


def _image_problem(entry: Any, seen: dict[int, dict[str, Any]]) -> str | None:
    if not _is_id(entry):
        return "expected an object with an integer id"
    if entry["id"] in seen:
        return "this image id is used twice"
    name = entry.get("file_name")
    if not isinstance(name, str) or not name or "\0" in name:
        return "expected a file_name"
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name.replace("\\", "/")).parts:
        return f"file_name {name!r} leads out of the image folder"
    for side in ("width", "height"):
        if not isinstance(entry.get(side), int) or isinstance(entry[side], bool) or entry[side] < 1:
            return f"expected a positive integer {side}, got {entry.get(side)!r}"
    return None


def _exists(images_dir: Path, name: str, present: dict[str, set[str]]) -> bool:
    """Whether a file is there, listing each folder once: data sets hold many thousands."""
    parent, _, leaf = name.replace("\\", "/").rpartition("/")
    if parent not in present:
        folder = images_dir / parent
        present[parent] = {each.name for each in folder.iterdir()} if folder.is_dir() else set()
    return leaf in present[parent]


def _annotations(
    entries: list[Any],
    path: Path,
    images: dict[int, dict[str, Any]],
    names: dict[int, str],
    kept: dict[int, int],
    problems: list[Problem],
) -> dict[int, list[tuple[tuple[float, float, float, float], int, bool]]]:
    objects: dict[int, list[tuple[tuple[float, float, float, float], int, bool]]] = {key: [] for key in images}
    seen: set[int] = set()
    for place, entry in enumerate(entries):
        record = f"annotation {_id_or_place(entry, place)}"
        reason = _annotation_problem(entry, images, names, seen)
        if reason is not None:
            problems.append(Problem(str(path), record, reason))
            continue
        seen.add(entry["id"])
        if entry["category_id"] in kept:
            box = _clipped(entry["bbox"], images[entry["image_id"]])
            objects[entry["image_id"]].append((box, kept[entry["category_id"]], bool(entry.get("iscrowd", 0))))
    return objects


def _annotation_problem(
    entry: Any, images: dict[int, dict[str, Any]], names: dict[int, str], seen: set[int]
) -> str | None:
    if not _is_id(entry):
        return "expected an object with an integer id"
    if entry["id"] in seen:
        return "this annotation id is used twice"
    if not _hashable_in(entry.get("image_id"), images):
        return f"image_id {entry.get('image_id')!r} is not among the usable images"
    if not _hashable_in(entry.get("category_id"), names):
        return f"category_id {entry.get('category_id')!r} is not among the categories"
    return _box_problem(entry.get("bbox"), images[entry["image_id"]])


def _box_problem(box: Any, image: dict[str, Any]) -> str | None:
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        return f"expected bbox [x, y, width, height], got {box!r}"
    if not all(math.isfinite(value) for value in box):
        return f"bbox {box} holds a value that is not finite"
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return f"bbox {box} has no area: width and height must be above 0"
    outside = max(-x, -y, x + width - image["width"], y + height - image["height"])
    if outside > BORDER_TOLERANCE or x >= image["width"] or y >= image["height"] or x + width <= 0 or y + height <= 0:
        return f"bbox {box} reaches out of its image of {image['width']} x {image['height']} pixels"
    return None


def _clipped(box: list[float], image: dict[str, Any]) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, box)
    return max(x, 0.0), max(y, 0.0), min(x + width, float(image["width"])), min(y + height, float(image["height"]))


def _record(image_id: int, image: dict[str, Any], objects: list) -> Record:
    boxes, labels, crowd = zip(*objects, strict=True) if objects else ((), (), ())
    return Record(image_id, image["path"], image["width"], image["height"], boxes, labels, crowd)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_id(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("id"), int) and not isinstance(entry["id"], bool)


def _hashable_in(value: Any, known: dict[int, Any]) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in known


def _id_or_place(entry: Any, place: int) -> str:
    return str(entry["id"]) if isinstance(entry, dict) and "id" in entry else f"at place {place}"
