"""Read annotated images of any known format, told apart by looking at the path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import DataError
from .annotated import AnnotatedImages, Problem, Record, joined
from .checks import slashed
from .coco import coco_source, load_coco
from .images import image_size
from .source import Source, checked
from .voc import voc_source, voc_splits
from .yolo import yolo_source, yolo_splits

EXPECTED = (
    "expected a COCO .json (or a folder that holds it), a VOC folder with Annotations/ and JPEGImages/, "
    "a VOC list in ImageSets/Main, or a YOLO data.yaml (or its folder)"
)


@dataclass(frozen=True)
class DataPath:
    """What a path was found to be.

    Attributes:
        format: `coco`, `voc` or `yolo`.
        path: the COCO folder or file, the VOC folder, or data.yaml.
        splits: those that it has; empty when it is one whole.
        split: the one that was asked for.
    """

    format: str
    path: Path
    splits: tuple[str, ...] = ()
    split: str | None = None

    def __str__(self) -> str:
        return f"{self.path}:{self.split}" if self.split else str(self.path)


def find_data(text: str | Path) -> DataPath:
    """Look at a path, `PATH` or `PATH:SPLIT`.

    Raises:
        DataError: nothing there, of no known format, or without that split.
    """
    path, split = Path(text), None
    if not path.exists() and ":" in path.name:
        whole, _, split = str(text).rpartition(":")
        path = Path(whole)
    found = _look(path)
    if split is None:
        return found
    if split == "val" and split not in found.splits and "valid" in found.splits:
        split = "valid"
    if split not in found.splits:
        there = ", ".join(found.splits) or "none"
        raise DataError(f"{path}: there is no split {split!r}: it has {there}")
    return replace(found, split=split)


def read_data(text: str | Path, *, images_dir: Path | None = None, strict: bool = False) -> AnnotatedImages:
    """Read and check annotated images.

    Args:
        text: a path, with `:SPLIT` behind it where it holds several; all of them are read without.
        images_dir: where the images of a COCO file are; by default it is searched beside the file.
        strict: see `source.checked`.
    Raises:
        DataError: see `find_data` and `source.checked`.
    """
    found = find_data(text)
    whole = found.split or not found.splits or found.format == "voc"  # of VOC every annotation, in a list or not
    splits = [found.split] if whole else list(found.splits)
    return joined([checked(_source(found, split, images_dir), strict=strict) for split in splits])


def check_images(
    dataset: AnnotatedImages, *, strict: bool = False, on_image: Callable[[], None] = lambda: None
) -> AnnotatedImages:
    """Decode every image, and leave out those that cannot be or are of another size than annotated.

    Args:
        dataset: with checked annotations.
        strict: a single bad image is an error.
        on_image: told of each image that was looked at.
    Raises:
        DataError: `strict`, or no image is left.
    """
    good, problems = [], list(dataset.problems)
    with ThreadPoolExecutor() as pool:
        for record, reason in zip(dataset.records, pool.map(_image_problem, dataset.records), strict=True):
            on_image()
            if reason is None:
                good.append(record)
            elif strict:
                raise DataError(f"{record.path}: {reason}")
            else:
                problems.append(Problem(str(record.path), f"image {record.image_id}", reason))
    if not good:
        raise DataError(f"{problems[-1]} (none of the {len(dataset.records)} images can be used)")
    return replace(dataset, records=tuple(good), problems=tuple(problems))


def _image_problem(record: Record) -> str | None:
    try:
        size = image_size(record.path, decode=True)
    except DataError as error:
        return str(error).removeprefix(f"{record.path}: ")
    return wrong_size(record, size)


def wrong_size(record: Record, size: tuple[int, int]) -> str | None:
    """What is wrong with an image of this width and height, if anything is."""
    annotated = (record.width, record.height)
    if size == annotated:
        return None
    turned = " (turned upright, as its EXIF says)" if size == annotated[::-1] else ""
    return f"the image is {size[0]} x {size[1]} pixels{turned}, its annotation says {record.width} x {record.height}"


def _look(path: Path) -> DataPath:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.is_dir():
        if (path / "Annotations").is_dir():
            return DataPath("voc", path, tuple(voc_splits(path)))
        if (path / "data.yaml").is_file():
            return DataPath("yolo", path / "data.yaml", tuple(yolo_splits(path / "data.yaml")))
        if jsons := _jsons(path):
            return DataPath("coco", path, tuple(jsons) if len(jsons) > 1 else ())
        if (path / "labels").is_dir():
            raise DataError(f"{path}: YOLO labels without {path / 'data.yaml'}: write one with the classes' names")
    elif path.suffix.lower() in (".yaml", ".yml"):
        return DataPath("yolo", path, tuple(yolo_splits(path)))
    elif path.suffix == ".txt" and path.parent.name == "Main" and path.parent.parent.name == "ImageSets":
        root = path.parent.parent.parent
        return DataPath("voc", root, tuple(voc_splits(root)), path.stem)
    elif path.suffix.lower() == ".json":
        return DataPath("coco", path)
    raise DataError(f"{path}: {EXPECTED}")


def _jsons(folder: Path) -> dict[str, Path]:
    """Split -> annotation file of a COCO folder: train.json, or annotations/instances_train2017.json."""
    files = sorted((folder / "annotations").glob("*.json")) or sorted(folder.glob("*.json"))
    instances = [each for each in files if each.stem.startswith("instances_")]
    return {each.stem.removeprefix("instances_"): each for each in instances or files}


def _source(found: DataPath, split: str | None, images_dir: Path | None) -> Source:
    if found.format == "voc":
        return voc_source(found.path, split)
    if found.format == "yolo":
        if split is None:
            raise DataError(f"{found.path}: it names no train, val or test folder")
        return yolo_source(found.path, split)
    file = found.path
    if file.is_dir():
        jsons = _jsons(file)
        file = jsons[split] if split else next(iter(jsons.values()))
    return coco_source(file, images_dir or _images_beside(file))


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
    raise DataError(f"{file}: its images are not in {', '.join(map(str, tried))}: say where they are with --images")


def _usual(file: Path) -> Iterator[Path]:
    name = file.stem.removeprefix("instances_")
    for base in (file.parent, file.parent.parent):
        yield base / name
        yield base / "images" / name
        yield base / "images"
    yield file.parent
