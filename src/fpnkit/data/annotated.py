"""Checked annotations: what every format is read into."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from .outlines import Outline

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Problem:
    """One bad record: which file, which record in it, and what is wrong."""

    file: str
    record: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.record}: {self.reason}"


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedObject:
    """One object of an image, in original pixels.

    Attributes:
        box_xyxy: inside the image.
        label: index into the data set's classes.
        crowd: a region whose objects are not told apart, or an object too difficult to count (VOC).
        bbox: x, y, width and height as they were read: it may stand out of the image a little.
        area: pixels that the object covers: as annotated, else those of `bbox`.
        outline: polygons or run lengths as they were read, if there are any.
    """

    box_xyxy: Box
    label: int
    crowd: bool = False
    bbox: Box
    area: float
    outline: Outline | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image and its objects.

    Attributes:
        image_id: the data set's own id.
        path: the image file.
        width, height: pixels, as annotated.
        objects: M of them; none on a background image.
        file_name: of the image, relative to the images' folder.
    """

    image_id: int
    path: Path
    width: int
    height: int
    objects: tuple[AnnotatedObject, ...] = ()
    file_name: str = ""

    @property
    def boxes_xyxy(self) -> tuple[Box, ...]:
        """M boxes, inside the image."""
        return tuple(each.box_xyxy for each in self.objects)

    @property
    def labels(self) -> tuple[int, ...]:
        """M indices into the data set's classes."""
        return tuple(each.label for each in self.objects)

    @property
    def crowd(self) -> tuple[bool, ...]:
        """M flags, see `AnnotatedObject`."""
        return tuple(each.crowd for each in self.objects)


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
    """Refuse a data set in which there is nothing to find, before a training is spent on it.

    Raises:
        DataError: it holds no object of its classes; crowds do not count.
    """
    if all(each.crowd for record in dataset.records for each in record.objects):
        raise DataError(f"{dataset.path}: no object of {', '.join(dataset.classes)} in it")


def ground_truth(dataset: AnnotatedImages) -> dict[str, list[dict[str, Any]]]:
    """The annotations in COCO's own form, as pycocotools wants it.

    Returns:
        Images, categories, and the annotations of the records with the box and area that the file gives; ids of
        annotations are counted from 1, since pycocotools takes an object of id 0 for none.
    """
    pairs = [(record, each) for record in dataset.records for each in record.objects]
    annotations = [
        {
            "id": number,
            "image_id": record.image_id,
            "category_id": dataset.category_ids[each.label],
            "bbox": list(each.bbox),
            "area": each.area,
            "iscrowd": int(each.crowd),
        }
        for number, (record, each) in enumerate(pairs, start=1)
    ]
    images = [{"id": each.image_id, "width": each.width, "height": each.height} for each in dataset.records]
    return {"images": images, "annotations": annotations, "categories": categories(dataset)}


def categories(dataset: AnnotatedImages) -> list[dict[str, Any]]:
    """The classes as COCO lists them."""
    pairs = zip(dataset.category_ids, dataset.classes, strict=True)
    return [{"id": number, "name": name} for number, name in pairs]


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


def _relabelled(record: Record, labels: Mapping[int, int]) -> Record:
    """The objects whose label is a key of `labels`, with its value for a label."""
    kept = (replace(each, label=labels[each.label]) for each in record.objects if each.label in labels)
    return replace(record, objects=tuple(kept))


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
        labels = {label: classes.index(name) for label, name in enumerate(each.classes)}
        for record in each.records:
            records.append(replace(_relabelled(record, labels), image_id=len(records) + 1))
    problems = tuple(problem for each in datasets for problem in each.problems)
    ids = tuple(range(1, len(classes) + 1))
    return AnnotatedImages(tuple(records), classes, ids, Path(", ".join(str(each.path) for each in datasets)), problems)
