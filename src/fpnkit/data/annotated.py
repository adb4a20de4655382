"""Checked annotations: the one form that every reader ends in, whatever the files were."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from .checks import is_number

Box = tuple[float, float, float, float]


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
        crowd: M flags: a region whose objects are not told apart, or an object too difficult to count (VOC).
        annotations: M annotations as they were read, in COCO's form: `bbox` not clipped, `area`, `segmentation`.
        file_name: of the image, relative to the images' folder.
    """

    image_id: int
    path: Path
    width: int
    height: int
    boxes_xyxy: tuple[Box, ...]
    labels: tuple[int, ...]
    crowd: tuple[bool, ...]
    annotations: tuple[dict[str, Any], ...] = ()
    file_name: str = ""


@dataclass(frozen=True)
class AnnotatedImages:
    """Checked annotations.

    Attributes:
        records: images in the file's order, those without objects among them.
        classes: names, by label.
        category_ids: the id of each label in COCO results.
        path: where they came from.
        problems: bad records that were left out.
    """

    records: tuple[Record, ...]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    path: Path
    problems: tuple[Problem, ...] = ()


def first_of(problems: Sequence[Problem]) -> str:
    """The first of some problems, and how many there are, in one line."""
    return f"{problems[0]}{f' (the first of {len(problems)} bad records)' if len(problems) > 1 else ''}"


def require_objects(dataset: AnnotatedImages) -> None:
    """Refuse a data set in which there is nothing to find, before it costs a training.

    Raises:
        DataError: it holds no object of its classes; crowds do not count.
    """
    if all(all(record.crowd) for record in dataset.records):
        raise DataError(f"{dataset.path}: no object of {', '.join(dataset.classes)} in it")


def ground_truth(dataset: AnnotatedImages) -> dict[str, list[dict[str, Any]]]:
    """The annotations in COCO's own form, as pycocotools wants it.

    Returns:
        Images, categories, and the annotations of the records with the box and area that the file gives; ids of
        annotations are counted from 1, since pycocotools takes an object of id 0 for none.
    """
    annotations: list[dict[str, Any]] = []
    for record in dataset.records:
        for label, crowd, entry in zip(record.labels, record.crowd, record.annotations, strict=True):
            number, category = len(annotations) + 1, dataset.category_ids[label]
            annotations.append(
                {"id": number, "image_id": record.image_id, "category_id": category, "bbox": entry["bbox"]}
                | {"area": object_area(entry), "iscrowd": int(crowd)}
            )
    images = [{"id": each.image_id, "width": each.width, "height": each.height} for each in dataset.records]
    return {"images": images, "annotations": annotations, "categories": categories(dataset)}


def categories(dataset: AnnotatedImages) -> list[dict[str, Any]]:
    """The classes as COCO lists them."""
    pairs = zip(dataset.category_ids, dataset.classes, strict=True)
    return [{"id": number, "name": name} for number, name in pairs]


def object_area(entry: dict[str, Any]) -> float:
    """Pixels that an object covers: as annotated, else those of its box."""
    area: Any = entry.get("area")
    usable = is_number(area) and 0 <= area < math.inf
    return area if usable else entry["bbox"][2] * entry["bbox"][3]


def selected(
    dataset: AnnotatedImages,
    classes: Sequence[str] | None = None,
    *,
    rename: Mapping[str, str] | None = None,
    some: bool = False,
) -> AnnotatedImages:
    """Another choice of classes; images without an object of these stay, as background.

    Args:
        dataset: of any classes.
        classes: names to keep after renaming, in the order of their labels; all by default.
        rename: old name -> new name; classes of one new name become one.
        some: a class that is not there is no error as long as another is: a small set may lack rare ones.
    Raises:
        DataError: a class that is not there, or named twice.
    """
    rename = rename or {}
    for old in () if some else rename:
        _require_class(old, dataset.classes, dataset.path)
    new = [rename.get(name, name) for name in dataset.classes]
    order = list(dict.fromkeys(new)) if classes is None else list(classes)
    for place, name in enumerate(order):
        if not (some and set(order) & set(new)):
            _require_class(name, new, dataset.path)
        if name in order[:place]:
            raise DataError(f"{dataset.path}: the class {name!r} is named twice: name each class once")
    free = itertools.count(max(dataset.category_ids) + 1)
    ids = tuple(dataset.category_ids[new.index(name)] if name in new else next(free) for name in order)
    labels = {label: order.index(name) for label, name in enumerate(new) if name in order}
    records = tuple(_relabelled(record, labels) for record in dataset.records)
    return replace(dataset, records=records, classes=tuple(order), category_ids=ids)


def _relabelled(record: Record, labels: dict[int, int]) -> Record:
    left = [index for index, label in enumerate(record.labels) if label in labels]
    return replace(
        record,
        boxes_xyxy=tuple(record.boxes_xyxy[index] for index in left),
        labels=tuple(labels[record.labels[index]] for index in left),
        crowd=tuple(record.crowd[index] for index in left),
        annotations=tuple(record.annotations[index] for index in left),
    )


def _require_class(name: str, known: Sequence[str], path: Path) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the classes are {', '.join(sorted(known)[:50])}"
        raise DataError(f"{path}: there is no class {name!r}: {hint}")


def joined(datasets: Sequence[AnnotatedImages]) -> AnnotatedImages:
    """Several data sets as one: classes of the same name become one, images are counted anew.

    Args:
        datasets: one or more; a single one is returned as it is.
    """
    if len(datasets) == 1:
        return datasets[0]
    classes = tuple(dict.fromkeys(name for each in datasets for name in each.classes))
    records: list[Record] = []
    for each in datasets:
        labels = [classes.index(name) for name in each.classes]
        for record in each.records:
            new = tuple(labels[label] for label in record.labels)
            records.append(replace(record, image_id=len(records) + 1, labels=new))
    problems = tuple(problem for each in datasets for problem in each.problems)
    ids = tuple(range(1, len(classes) + 1))
    return AnnotatedImages(tuple(records), classes, ids, Path(", ".join(str(each.path) for each in datasets)), problems)
