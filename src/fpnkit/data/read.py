"""Read annotated images of any known format, recognised by its files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import ConfigError, DataError
from .annotated import AnnotatedImages, Problem, Record, joined
from .data_format import DataFormat, ReadOptions
from .formats import FORMATS, by_name, listed
from .images import as_rgb_array, image_wh
from .paths import MAX_PIXELS
from .source import checked


@dataclass(frozen=True)
class DataPath:
    """What a path was found to be.

    Attributes:
        format: one of `FORMATS`.
        path: the root of the data set: the COCO folder or file, the VOC folder, or data.yaml.
        splits: those that it has; empty when it is one whole.
        split: the one that was asked for.
    """

    format: DataFormat
    path: Path
    splits: tuple[str, ...] = ()
    split: str | None = None

    def __str__(self) -> str:
        return f"{self.path}:{self.split}" if self.split else str(self.path)


def find_data(text: str | Path) -> DataPath:
    """Recognise the format and splits of a path, `PATH` or `PATH:SPLIT`.

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


def _look(path: Path) -> DataPath:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    almost = None
    for each in FORMATS.values():
        try:
            found = each.sniff(path)
        except DataError as error:
            almost = almost or error
        else:
            if found:
                root, split = found
                return DataPath(each, root, each.splits(root), split)
    raise almost or DataError(f"{path}: expected {listed([each.description for each in by_name()])}")


def read_data(
    data: str | Path | Sequence[str | Path],
    *,
    images_dir: Path | None = None,
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> AnnotatedImages:
    """Read and check annotated images.

    Args:
        data: a path, with `:SPLIT` behind it where it holds several (all of them are read without); or several paths,
            which become one data set, see `joined`.
        images_dir: the folder of the images, for a format that lets them be anywhere (COCO); by default it is searched
            beside the annotations.
        strict: see `source.checked`.
        max_pixels: see `read_image`; only YOLO's reader looks into images, since its files do not tell their sizes.
    Raises:
        DataError: see `find_data` and `source.checked`.
        ConfigError: `images_dir`, and every path is of a format that says itself where its images are.
    """
    found = [find_data(each) for each in ([data] if isinstance(data, str | Path) else data)]
    if images_dir and not any(each.format.images_apart for each in found):
        apart = listed([each.title for each in by_name() if each.images_apart])
        raise ConfigError(
            f"images_dir is for {apart}: {found[0].path} is {found[0].format.title}, which names its images itself"
        )
    options = ReadOptions(images_dir=images_dir, max_pixels=max_pixels)
    return joined([_read(each, options, strict=strict) for each in found])


def _read(found: DataPath, options: ReadOptions, *, strict: bool) -> AnnotatedImages:
    return joined([checked(each, strict=strict) for each in found.format.read(found.path, found.split, options)])


def read_record(record: Record, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A record's image, (H, W, 3) uint8 RGB.

    Raises:
        DataError: it cannot be read, see `read_image`, or is of another size than annotated.
    """
    image = as_rgb_array(record.path, max_pixels=max_pixels)
    if reason := wrong_size(record, (image.shape[1], image.shape[0])):
        raise DataError(f"{record.path}: {reason}")
    return image


def check_images(
    dataset: AnnotatedImages,
    *,
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    on_image: Callable[[], None] = lambda: None,
) -> AnnotatedImages:
    """Decode every image, and leave out those that cannot be or are of another size than annotated.

    Args:
        dataset: with checked annotations.
        strict: a single bad image is an error.
        max_pixels: images of more are bad, too.
        on_image: called after each image.
    Raises:
        DataError: `strict`, or no image is left.
    """
    good, problems = [], list(dataset.problems)
    with ThreadPoolExecutor() as pool:
        reasons = pool.map(lambda record: _image_problem(record, max_pixels), dataset.records)
        for record, reason in zip(dataset.records, reasons, strict=True):
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


def _image_problem(record: Record, max_pixels: int) -> str | None:
    try:
        found_wh = image_wh(record.path, decode=True, max_pixels=max_pixels)
    except DataError as error:
        return str(error).removeprefix(f"{record.path}: ")
    return wrong_size(record, found_wh)


def wrong_size(record: Record, found_wh: tuple[int, int]) -> str | None:
    """What is wrong with an image of this width and height, if anything is."""
    annotated_wh = (record.width, record.height)
    if found_wh == annotated_wh:
        return None
    turned = " (turned upright, as its EXIF says)" if found_wh == annotated_wh[::-1] else ""
    return (
        f"the image is {found_wh[0]} x {found_wh[1]} pixels{turned}, "
        f"its annotation says {record.width} x {record.height}"
    )
