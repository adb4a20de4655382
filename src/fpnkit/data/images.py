"""Decode image files safely."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ..errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""Decoders that are allowed; the content decides, not the file's name. JPEG's reads the MPO of cameras, too."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""What counts as an image when a folder is searched."""

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded: a small file can hold a huge image."""

ORIENTATION, TURNED = ExifTags.Base.Orientation, (5, 6, 7, 8)
"""EXIF's tag, and its values that exchange width and height."""


def read_image(path: str | Path) -> Image.Image:
    """Decode a file to RGB, upright by its EXIF orientation.

    Args:
        path: JPEG, PNG, WebP, BMP or TIFF.
    Returns:
        An RGB image, fully decoded.
    Raises:
        DataError: missing, empty, truncated, another format, or more than `MAX_PIXELS`; the text names the file.
    """
    with _opened(Path(path)) as image:
        return to_rgb(image)


def image_size(path: str | Path, *, decode: bool = False) -> tuple[int, int]:
    """Width and height of an upright image, from its header.

    Args:
        path: the file.
        decode: read all of it, a JPEG at an eighth of its size: that finds what is damaged, at little cost.
    Raises:
        DataError: see `read_image`; without `decode` nothing behind the header is looked at.
    """
    with _opened(Path(path)) as image:
        width, height = image.size
        turned = image.getexif().get(ORIENTATION, 1) in TURNED
        if decode:
            image.draft("L", (max(1, width // 8), max(1, height // 8)))
            image.load()
    return (height, width) if turned else (width, height)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A file's image, not decoded yet; whatever goes wrong with it becomes a `DataError` that names the file."""
    try:
        if not path.is_file():
            raise DataError(f"{path}: not a file" if path.exists() else f"{path}: no such image file")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                _require_pixels(path, image.size)
                yield image
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"{path}: not an image of a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise DataError(f"{path}: more than {MAX_PIXELS:,} pixels, refused as a decompression bomb") from None
    except Exception as error:  # decoders raise anything on damaged files
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        raise DataError(f"{path}: damaged image: {error}") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright by EXIF, transparency on white, 8-bit RGB."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _scale_to_bytes(image)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def find_images(paths: Iterable[str | Path]) -> Iterator[Path]:
    """Files as given, folders as the images below them, in order of name.

    Raises:
        DataError: a folder without images. A file that does not exist is found out when it is read.
    """
    for path in map(Path, paths):
        if not os.path.isdir(path):  # Path.is_dir raises on names that the system cannot hold
            yield path
            continue
        found = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file())
        if not found:
            raise DataError(f"{path}: the folder holds no images ({', '.join(sorted(SUFFIXES))})")
        yield from found


def _require_pixels(path: Path, size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{path}: {width} x {height} is more than {MAX_PIXELS:,} pixels, refused as a decompression bomb"
        )


def _scale_to_bytes(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    top = 65535.0 if image.mode.startswith("I") else max(float(values.max()), 1e-6)
    return Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8))
