"""What a reader found, in COCO's form, and the checks that are the same for every format."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from .annotated import AnnotatedImages, AnnotatedObject, Box, Problem, Record, first_of
from .checks import annotation_problem, category_problem, image_problem, is_number, shown
from .outlines import outline_from_coco
from .paths import slashed

Place = tuple[str, str]
"""The file, and the record in it."""


@dataclass
class Source:
    """Entries that nobody has checked yet.

    Attributes:
        path: what was asked for.
        images_dir: the folder that `file_name` is relative to.
        images, annotations, categories: entries as COCO has them.
        place: kind ("image", ...), number in its list and entry -> where it came from.
        problems: what could not even be made an entry.
    """

    path: Path
    images_dir: Path
    place: Callable[[str, int, Any], Place]
    images: list[Any] = field(default_factory=list)
    annotations: list[Any] = field(default_factory=list)
    categories: list[Any] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def note(self, kind: str, number: int, entry: Any, reason: str) -> None:
        """Add a bad entry to `problems`."""
        self.problems.append(Problem(*self.place(kind, number, entry), reason))


class Places:
    """Remembers where each entry came from, for formats of many files."""

    def __init__(self) -> None:
        self._places: dict[str, list[Place]] = {"image": [], "annotation": [], "category": []}

    def add(self, kind: str, file: Path | str, record: str) -> None:
        """Of the next entry of this kind."""
        self._places[kind].append((str(file), record))

    def __call__(self, kind: str, number: int, entry: Any) -> Place:
        return self._places[kind][number]


def checked(source: Source, *, strict: bool = False) -> AnnotatedImages:
    """Check every entry.

    Args:
        source: of a reader.
        strict: a single bad record is an error.
    Returns:
        What is good, with classes in the order of their ids; images without objects stay, as background. The rest is
        listed in `problems`.
    Raises:
        DataError: no usable image or category, or with `strict` any bad record: the first is named, with the number
            of others.
    """
    names = _categories(source)
    images, refused = _images(source)
    objects = _annotations(source, images, refused, names)
    problems = tuple(source.problems)
    if problems and (strict or not images):
        raise DataError(first_of(problems))
    ids = tuple(sorted(names))
    labels = {number: label for label, number in enumerate(ids)}
    records = tuple(_record(number, image, objects[number], labels) for number, image in images.items())
    return AnnotatedImages(records, tuple(names[each] for each in ids), ids, source.path, problems)


def _categories(source: Source) -> dict[int, str]:
    names: dict[int, str] = {}
    taken: set[str] = set()
    for number, entry in enumerate(source.categories):
        reason = category_problem(entry, names, taken)
        if reason is None:
            names[entry["id"]] = entry["name"]
            taken.add(entry["name"])
        else:
            source.note("category", number, entry, reason)
    if not names:
        why = f": {first_of(source.problems)}" if source.problems else ""
        raise DataError(f"{source.path}: it has no usable categories{why}")
    return names


def _images(source: Source) -> tuple[dict[int, dict[str, Any]], set[int]]:
    """Usable images by id, and the ids of the others."""
    images: dict[int, dict[str, Any]] = {}
    refused: set[int] = set()
    present: dict[str, set[str]] = {}
    files: dict[str, int] = {}
    for number, entry in enumerate(source.images):
        reason = image_problem(entry, images)
        name = slashed(entry["file_name"]) if reason is None else ""
        if reason is None and not _exists(source.images_dir, name, present):
            reason = f"{shown(entry['file_name'])} is not in {source.images_dir}"
        if reason is None and name in files:
            reason = f"{shown(entry['file_name'])} is image {files[name]} already"
        if reason is None:
            images[entry["id"]] = {**entry, "file_name": name, "path": source.images_dir / name}
            files[name] = entry["id"]
        else:
            source.note("image", number, entry, reason)
            if isinstance(entry, dict) and isinstance(entry.get("id"), int):
                refused.add(entry["id"])
    return images, refused


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
    source: Source, images: dict[int, dict[str, Any]], refused: set[int], names: dict[int, str]
) -> dict[int, list[dict[str, Any]]]:
    """Good annotations by image; those of a refused image are not named once more."""
    objects: dict[int, list[dict[str, Any]]] = {number: [] for number in images}
    seen: set[int] = set()
    boxes: dict[tuple[Any, ...], str] = {}
    for number, entry in enumerate(source.annotations):
        owner = entry.get("image_id") if isinstance(entry, dict) else None
        if isinstance(owner, int) and owner in refused and owner not in images:
            continue
        reason = annotation_problem(entry, images, names, seen)
        if reason is None:
            key = (entry["image_id"], entry["category_id"], *entry["bbox"])
            here = source.place("annotation", number, entry)[1]
            if key in boxes:
                reason = f"the same box of the same class as {boxes[key]}"
            boxes.setdefault(key, here)
        if reason is None:
            objects[entry["image_id"]].append(entry)
        else:
            source.note("annotation", number, entry, reason)
    return objects


def _record(number: int, image: dict[str, Any], entries: list[dict[str, Any]], labels: dict[int, int]) -> Record:
    return Record(
        image_id=number,
        path=image["path"],
        width=image["width"],
        height=image["height"],
        objects=tuple(_object(entry, image, labels) for entry in entries),
        file_name=image["file_name"],
    )


def _object(entry: dict[str, Any], image: dict[str, Any], labels: dict[int, int]) -> AnnotatedObject:
    area: Any = entry.get("area")
    usable = is_number(area) and 0 <= area < math.inf
    return AnnotatedObject(
        box_xyxy=_clipped(entry["bbox"], image),
        label=labels[entry["category_id"]],
        crowd=bool(entry.get("iscrowd")),
        bbox=tuple(entry["bbox"]),
        area=area if usable else entry["bbox"][2] * entry["bbox"][3],
        outline=outline_from_coco(entry.get("segmentation")),
    )


def _clipped(box: list[float], image: dict[str, Any]) -> Box:
    x, y, width, height = map(float, box)
    return max(x, 0.0), max(y, 0.0), min(x + width, float(image["width"])), min(y + height, float(image["height"]))
