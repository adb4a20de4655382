"""Read COCO JSON annotations, and say of every bad record what is wrong with it."""

from __future__ import annotations

import difflib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from .coco_checks import (
    annotation_problem,
    category_problem,
    id_or_place,
    image_problem,
    is_id,
    is_number,
    shown,
    slashed,
)

MAX_BAD_SHARE = 0.001
"""Large real data sets hold a few broken records; up to this share they are reported and left out, above it
the file is refused."""

Object = tuple[tuple[float, float, float, float], int, bool, int]
"""Box, label, crowd, annotation id."""


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
        annotation_ids: M ids of the annotations in the file.
    """

    image_id: int
    path: Path
    width: int
    height: int
    boxes_xyxy: tuple[tuple[float, float, float, float], ...]
    labels: tuple[int, ...]
    crowd: tuple[bool, ...]
    annotation_ids: tuple[int, ...] = ()


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
    if not images_dir.is_dir():
        raise DataError(f"{images_dir}: {'not a folder' if images_dir.exists() else 'no such image folder'}")
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


def require_objects(dataset: CocoDataset) -> None:
    """Refuse a data set in which there is nothing to find, before it costs a training.

    Raises:
        DataError: it holds no object of its classes; crowds do not count.
    """
    if all(all(record.crowd) for record in dataset.records):
        raise DataError(f"{dataset.annotations_path}: no object of {', '.join(dataset.classes)} in it")


def ground_truth(dataset: CocoDataset) -> dict[str, list[dict[str, Any]]]:
    """The usable part of the annotation file in COCO's own form, as pycocotools wants it.

    Returns:
        Images, categories, and the annotations of the records with the box and area that the file gives; ids of
        annotations are counted from 1, since pycocotools takes an object of id 0 for none.
    """
    usable = {number for record in dataset.records for number in record.annotation_ids}
    annotations: list[dict[str, Any]] = []
    for entry in _load(dataset.annotations_path)["annotations"]:
        if is_id(entry) and entry["id"] in usable:
            usable.remove(entry["id"])
            annotations.append(_plain_annotation(entry, len(annotations) + 1))
    images = [{"id": each.image_id, "width": each.width, "height": each.height} for each in dataset.records]
    categories = [
        {"id": number, "name": name} for number, name in zip(dataset.category_ids, dataset.classes, strict=True)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def _plain_annotation(entry: dict[str, Any], number: int) -> dict[str, Any]:
    area: Any = entry.get("area")
    if not is_number(area) or not 0 <= area < math.inf:
        area = entry["bbox"][2] * entry["bbox"][3]
    copied = {name: entry[name] for name in ("image_id", "category_id", "bbox")}
    return {"id": number, **copied, "area": area, "iscrowd": int(entry.get("iscrowd") or 0)}


def _load(path: Path) -> dict[str, list[Any]]:
    if not path.is_file():
        raise DataError(f"{path}: {'not a file' if path.exists() else 'no such annotation file'}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if text and not text.isspace() else None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if content is None:
        raise DataError(f"{path}: the file is empty")
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
    taken: set[str] = set()
    for place, entry in enumerate(entries):
        reason = category_problem(entry, names, taken)
        if reason is None:
            names[entry["id"]] = entry["name"]
            taken.add(entry["name"])
        else:
            problems.append(Problem(str(path), f"category {id_or_place(entry, place)}", reason))
    return names


def _select(names: dict[int, str], classes: Sequence[str] | None, path: Path) -> dict[int, int]:
    """Category id -> label."""
    if not names:
        raise DataError(f"{path}: it has no usable categories")
    if classes is None:
        return {category_id: label for label, category_id in enumerate(sorted(names))}
    by_name = {name: category_id for category_id, name in names.items()}
    for place, name in enumerate(classes):
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the classes are {', '.join(sorted(by_name)[:50])}"
            raise DataError(f"{path}: there is no class {name!r}: {hint}")
        if name in classes[:place]:
            raise DataError(f"{path}: the class {name!r} is named twice: name each class once")
    return {by_name[name]: label for label, name in enumerate(classes)}


def _images(entries: list[Any], path: Path, images_dir: Path, problems: list[Problem]) -> dict[int, dict[str, Any]]:
    images: dict[int, dict[str, Any]] = {}
    present: dict[str, set[str]] = {}
    for place, entry in enumerate(entries):
        reason = image_problem(entry, images)
        if reason is None and not _exists(images_dir, slashed(entry["file_name"]), present):
            reason = f"{shown(entry['file_name'])} is not in {images_dir}"
        if reason is None:
            images[entry["id"]] = {**entry, "path": images_dir / slashed(entry["file_name"])}
        else:
            problems.append(Problem(str(path), f"image {id_or_place(entry, place)}", reason))
    return images


def _exists(images_dir: Path, name: str, present: dict[str, set[str]]) -> bool:
    """Whether a file is there, listing each folder once: data sets hold many thousands."""
    parent, _, leaf = name.rpartition("/")
    if parent not in present:
        try:
            present[parent] = set(os.listdir(images_dir / parent))
        except (OSError, ValueError):
            present[parent] = set()
    return leaf in present[parent]


def _annotations(
    entries: list[Any],
    path: Path,
    images: dict[int, dict[str, Any]],
    names: dict[int, str],
    kept: dict[int, int],
    problems: list[Problem],
) -> dict[int, list[Object]]:
    objects: dict[int, list[Object]] = {key: [] for key in images}
    seen: set[int] = set()
    for place, entry in enumerate(entries):
        reason = annotation_problem(entry, images, names, seen)
        if reason is not None:
            problems.append(Problem(str(path), f"annotation {id_or_place(entry, place)}", reason))
        elif entry["category_id"] in kept:
            box = _clipped(entry["bbox"], images[entry["image_id"]])
            crowd = bool(entry.get("iscrowd"))
            objects[entry["image_id"]].append((box, kept[entry["category_id"]], crowd, entry["id"]))
    return objects


def _clipped(box: list[float], image: dict[str, Any]) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, box)
    return max(x, 0.0), max(y, 0.0), min(x + width, float(image["width"])), min(y + height, float(image["height"]))


def _record(image_id: int, image: dict[str, Any], objects: list[Object]) -> Record:
    boxes, labels, crowd, ids = zip(*objects, strict=True) if objects else ((), (), (), ())
    return Record(image_id, image["path"], image["width"], image["height"], boxes, labels, crowd, ids)
