"""COCO: one JSON file of images, annotations and categories."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from .annotated import AnnotatedImages, ground_truth, selected
from .checks import id_or_place
from .data_format import DataFormat, ReadOptions
from .paths import slashed
from .source import Place, Source, checked
from .writing import copy_images, image_names


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
    """A data set as the content of a COCO file; outlines are kept as they were read."""
    content = ground_truth(dataset)
    for image, record in zip(content["images"], dataset.records, strict=True):
        image["file_name"] = record.file_name
    objects = (each for record in dataset.records for each in record.objects)
    for entry, each in zip(content["annotations"], objects, strict=True):
        if each.outline:
            entry["segmentation"] = each.outline.as_coco()
    return content


def _sniff(path: Path) -> tuple[Path, str | None] | None:
    """A .json, or a folder with some."""
    found = bool(_jsons(path)) if path.is_dir() else path.suffix.lower() == ".json"
    return (path, None) if found else None


def _splits(root: Path) -> tuple[str, ...]:
    """Of a folder with several files."""
    jsons = _jsons(root) if root.is_dir() else {}
    return tuple(jsons) if len(jsons) > 1 else ()


def _read(root: Path, split: str | None, options: ReadOptions) -> list[Source]:
    """Raises: see `coco_source`; or its images are not found."""
    jsons = _jsons(root) if root.is_dir() else {"": root}
    files = [jsons[split]] if split else list(jsons.values())
    return [coco_source(file, options.images_dir or _images_beside(file)) for file in files]


def _write(splits: Mapping[str, AnnotatedImages], out: Path, on_image: Callable[[], None]) -> int:
    for split, dataset in splits.items():
        names = image_names(dataset, set())
        copy_images(dataset, out / split, names, on_image)
        content = as_coco(dataset)
        for image in content["images"]:
            image["file_name"] = names[image["id"]]
        (out / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return 0


def _jsons(folder: Path) -> dict[str, Path]:
    """Split -> annotation file of a COCO folder: train.json, or annotations/instances_train2017.json."""
    files = sorted((folder / "annotations").glob("*.json")) or sorted(folder.glob("*.json"))
    instances = [each for each in files if each.stem.startswith("instances_")]
    return {each.stem.removeprefix("instances_"): each for each in instances or files}


def _images_beside(file: Path) -> Path:
    """The folder with a COCO file's images, of those that are usual."""
    first = next((each for each in load_coco(file)["images"] if isinstance(each, dict)), {})
    name = slashed(str(first.get("file_name", "")))
    tried = list(_usual(file))
    for folder in tried:
        if name and (folder / name).is_file():
            return folder
    for folder in tried:
        if folder.is_dir() and folder != file.parent:
            return folder
    raise DataError(f"{file}: its images are not in {', '.join(map(str, tried))}: name their folder as images_dir")


def _usual(file: Path) -> Iterator[Path]:
    name = file.stem.removeprefix("instances_")
    for base in (file.parent, file.parent.parent):
        yield base / name
        yield base / "images" / name
        yield base / "images"
    yield file.parent


FORMAT = DataFormat(
    name="coco",
    title="COCO",
    description="a COCO .json (or a folder that holds it)",
    writes="SPLIT.json, and SPLIT/ with the images",
    images_apart=True,
    sniff=_sniff,
    splits=_splits,
    read=_read,
    write=_write,
)
