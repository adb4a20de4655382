"""Data to train and to validate on, from paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from ..data.annotated import AnnotatedImages, selected
from ..data.paths import MAX_PIXELS
from ..data.read import check_images, find_data, read_data
from ..errors import ConfigError

Data = str | Path | Sequence[str | Path] | AnnotatedImages
"""A path, with `:SPLIT` behind it where it has several; several paths, which become one data set; or what was read."""


def read_train_and_val(
    data: Data,
    val: Data | None = None,
    *,
    images_dir: Path | None = None,
    val_images_dir: Path | None = None,
    classes: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    check: Callable[[AnnotatedImages], AnnotatedImages] | None = None,
) -> tuple[AnnotatedImages, AnnotatedImages]:
    """Training and validation data of the same classes, every record checked and every image decoded.

    Args:
        data: to train on.
        val: to validate on; by default the split `val` of `data`, which then is trained on with its split `train`.
        images_dir, val_images_dir: of COCO files; by default searched beside them.
        classes: names to keep, in the order of their labels; all by default.
        rename: old name -> new name; classes of one new name become one.
        strict: a bad record is an error, and is not left out.
        max_pixels: larger images are bad records.
        check: decodes the images instead of `check_images`, and tells how far it is.
    Raises:
        DataError: no such data, no such class, or no usable record.
        ConfigError: `val` is not given, and the data has no split of that name.
    """
    check = check or partial(check_images, strict=strict, max_pixels=max_pixels)
    if val is None:
        data, val = _own_splits(data)
        val_images_dir = val_images_dir or images_dir

    def read(
        given: Data, images_dir: Path | None, classes: Sequence[str] | None, *, some: bool = False
    ) -> AnnotatedImages:
        if isinstance(given, AnnotatedImages):
            found = given
        else:
            found = read_data(_paths(given), images_dir=images_dir, strict=strict, max_pixels=max_pixels)
        return check(selected(found, classes, rename=rename, some=some))

    train_data = read(data, images_dir, classes)
    return train_data, read(val, val_images_dir, train_data.classes, some=True)


def _paths(data: str | Path | Sequence[str | Path]) -> list[str | Path]:
    return [data] if isinstance(data, str | Path) else list(data)


def _own_splits(data: Data) -> tuple[list[str], list[str]]:
    """The splits train and val of the same data."""
    if isinstance(data, AnnotatedImages):
        raise ConfigError(f"{data.path}: pass val=DATA: annotated images that are read already have no splits")
    for path in _paths(data):
        found = find_data(path)
        if found.split or "train" not in found.splits or not {"val", "valid"} & set(found.splits):
            there = f"it has {', '.join(found.splits)}" if found.splits else "it has no splits"
            raise ConfigError(f"{path} is not split into train and val ({there}): pass val=DATA")
    return [f"{path}:train" for path in _paths(data)], [f"{path}:val" for path in _paths(data)]
