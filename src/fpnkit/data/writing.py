"""Copies of images under names that an annotation format can use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from .annotated import AnnotatedImages


def image_names(dataset: AnnotatedImages, taken: set[str], *, flat: bool = False) -> dict[int, str]:
    """Image id -> name below its new folder; of no two the same stem, which VOC and YOLO name annotations by.

    Folders that all of them share are dropped.

    Args:
        dataset: whose images they are.
        taken: stems in use, added to.
        flat: without folders.
    """
    names = {}
    shared = os.path.commonpath([PurePosixPath(record.file_name).parent for record in dataset.records])
    for record in dataset.records:
        place = PurePosixPath(record.file_name).relative_to(shared)
        stem = "_".join(place.with_suffix("").parts) if flat else str(place.with_suffix(""))
        free, number = stem, 1
        while free in taken:
            number += 1
            free = f"{stem}_{number}"
        taken.add(free)
        names[record.image_id] = free + place.suffix
    return names


def copy_images(dataset: AnnotatedImages, folder: Path, names: Mapping[int, str], on_image: Callable[[], None]) -> None:
    """Copy the image files of a data set.

    Args:
        dataset: whose images they are.
        folder: where they go.
        names: image id -> name below the folder.
        on_image: called after each image.
    """
    for record in dataset.records:
        target = folder / names[record.image_id]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(record.path, target)
        on_image()
