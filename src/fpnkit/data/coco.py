"""COCO: one JSON file of images, annotations and categories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from .annotated import AnnotatedImages, categories, object_area, selected
from .checks import id_or_place
from .source import Place, Source, checked


def read_coco(
    path: str | Path,
    images_dir: str | Path,
    *,
    classes: Sequence[str] | None = None,
    strict: bool = False,
) -> AnnotatedImages:
    """Read and check a COCO file.

    Args:
        path: the annotation JSON.
        images_dir: folder that `file_name` is relative to.
        classes: see `selected`.
        strict: see `checked`.
    Raises:
        DataError: not readable as COCO, or see `selected` and `checked`.
    """
    return selected(checked(coco_source(Path(path), Path(images_dir)), strict=strict), classes)


def coco_source(path: Path, images_dir: Path) -> Source:
    """The entries of a COCO file.

    Raises:
        DataError: not readable as COCO, or the folder is not there.
    """
    content = load_coco(path)
    if not images_dir.is_dir():
        raise DataError(f"{images_dir}: {'not a folder' if images_dir.exists() else 'no such image folder'}")

    def place(kind: str, number: int, entry: Any) -> Place:
        return str(path), f"{kind} {id_or_place(entry, number)}"

    return Source(path, images_dir, place, content["images"], content["annotations"], content["categories"])


def load_coco(path: Path) -> dict[str, list[Any]]:
    """The JSON, with its three lists.

    Raises:
        DataError: not readable as COCO.
    """
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


def as_coco(dataset: AnnotatedImages) -> dict[str, list[dict[str, Any]]]:
    """A data set as the content of a COCO file; masks are kept."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in dataset.records:
        images.append(
            {"id": record.image_id, "file_name": record.file_name, "width": record.width, "height": record.height}
        )
        for label, crowd, entry in zip(record.labels, record.crowd, record.annotations, strict=True):
            annotation = {
                "id": len(annotations) + 1,
                "image_id": record.image_id,
                "category_id": dataset.category_ids[label],
                "bbox": entry["bbox"],
                "area": object_area(entry),
                "iscrowd": int(crowd),
            }
            mask = {"segmentation": entry["segmentation"]} if entry.get("segmentation") else {}
            annotations.append(annotation | mask)
    return {"images": images, "annotations": annotations, "categories": categories(dataset)}
