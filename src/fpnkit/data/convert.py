"""Write annotated images in another format, with copies of the images."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import ConfigError
from .annotated import AnnotatedImages
from .coco import as_coco
from .voc import write_voc
from .yolo import write_data_yaml, write_yolo

FORMATS = ("coco", "voc", "yolo")


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        images, boxes: how many.
        left_out: boxes that the format has no place for.
    """

    images: int
    boxes: int
    left_out: int


def convert(
    splits: Mapping[str, AnnotatedImages],
    to: str,
    out: Path,
    *,
    on_image: Callable[[], None] = lambda: None,
) -> Converted:
    """Write splits of the same classes.

        coco   SPLIT.json and SPLIT/ with the images
        voc    Annotations/, JPEGImages/, ImageSets/Main/SPLIT.txt
        yolo   data.yaml, images/SPLIT/, labels/SPLIT/

    COCO holds everything; VOC neither ids, areas, masks nor boxes of a pixel's width, and crowds become `difficult`;
    YOLO boxes alone.

    Args:
        splits: name -> data.
        to: `coco`, `voc` or `yolo`.
        out: a new or empty folder.
        on_image: told of each image that was copied.
    Raises:
        ConfigError: something is in the folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: not an empty folder: name another, nothing is overwritten")
    out.mkdir(parents=True, exist_ok=True)
    left_out, taken = 0, set[str]()
    for split, dataset in splits.items():
        folder = out / {"coco": split, "voc": "JPEGImages", "yolo": f"images/{split}"}[to]
        names = _names(dataset, taken if to == "voc" else set(), flat=to == "voc")
        _copy(dataset, folder, names, on_image)
        if to == "coco":
            content = as_coco(dataset)
            for image in content["images"]:
                image["file_name"] = names[image["id"]]
            (out / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
        elif to == "voc":
            left_out += write_voc(out, dataset, split, names)
        else:
            left_out += write_yolo(out, dataset, split, names)
    if to == "yolo":
        write_data_yaml(out, next(iter(splits.values())).classes, list(splits))
    records = [record for dataset in splits.values() for record in dataset.records]
    return Converted(len(records), sum(len(record.labels) for record in records) - left_out, left_out)


def _names(dataset: AnnotatedImages, taken: set[str], *, flat: bool) -> dict[int, str]:
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


def _copy(dataset: AnnotatedImages, folder: Path, names: dict[int, str], on_image: Callable[[], None]) -> None:
    for record in dataset.records:
        target = folder / names[record.image_id]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(record.path, target)
        on_image()
