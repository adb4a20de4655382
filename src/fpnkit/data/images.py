"""Decode image files safely, and turn every kind of picture into one kind of array."""

from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import (
    BmpImagePlugin,
    ExifTags,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from ..errors import DataError
from .paths import MAX_PIXELS, SUFFIXES

DECODERS = (JpegImagePlugin, PngImagePlugin, WebPImagePlugin, BmpImagePlugin, TiffImagePlugin)
"""Importing these registers them with Pillow. JPEG's reads the MPO of cameras, too."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""Formats that are allowed; the content decides, not the file's name."""

ORIENTATION, TURNED = ExifTags.Base.Orientation, (5, 6, 7, 8)
"""EXIF's tag, and its values that exchange width and height."""

EXPECTED = (
    "expected one image: a path, bytes, a binary file, a PIL image, a uint8 RGB array (H, W, 3), RGBA (H, W, 4) or "
    "grey (H, W) or (H, W, 1), or a uint8 RGB tensor (3, H, W)"
)


def as_rgb_array(picture: Any, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A picture of any accepted kind as RGB pixels.

    | kind | what is accepted |
    |---|---|
    | path | `str` or `Path` of a JPEG, PNG, WebP, BMP or TIFF file |
    | bytes | the content of such a file |
    | binary file | anything with `read`: an open file, `io.BytesIO`, an upload; read from its start where it can seek |
    | PIL image | any mode |
    | array | uint8: (H, W, 3) RGB, (H, W, 4) RGBA, (H, W) or (H, W, 1) grey; read-only and strided ones, too |
    | tensor | torch, uint8, (3, H, W) RGB, on any device |

    Files and PIL images are turned upright by their EXIF orientation; transparency is shown on white. Arrays are RGB:
    of an image that OpenCV read, pass `image[:, :, ::-1]`.

    Args:
        picture: see above.
        max_pixels: files and PIL images of more are refused before they are decoded.
    Returns:
        (H, W, 3) uint8, C-contiguous and writable; it may share its memory with an array or tensor that was given.
    Raises:
        DataError: another kind, dtype or shape, with the one that came; or see `read_image`.
    """
    pixels = _decoded_pixels(picture, max_pixels)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise DataError(_refusal(picture))
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise DataError(_refusal(picture))
    if pixels.shape[2] == 4:
        pixels = np.asarray(to_rgb(Image.fromarray(pixels)))
    elif pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return np.require(pixels, requirements=("C_CONTIGUOUS", "WRITEABLE"))


def _decoded_pixels(picture: Any, max_pixels: int) -> Any:
    """(H, W, 3) pixels of everything but an array; what is of no accepted kind is returned as it came."""
    if isinstance(picture, str | os.PathLike):
        return np.asarray(read_image(Path(picture), max_pixels=max_pixels))
    if isinstance(picture, bytes | bytearray | memoryview):
        return np.asarray(_decoded(bytes(picture), max_pixels))
    if hasattr(picture, "read"):
        return np.asarray(_decoded(_content(picture), max_pixels))
    if isinstance(picture, Image.Image):
        with _errors_named(f"PIL image of mode {picture.mode}"):
            _require_pixels(picture.size, max_pixels)
            return np.asarray(to_rgb(picture))
    if hasattr(picture, "detach") and hasattr(picture, "numpy"):
        return _tensor_pixels(picture)
    return picture


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a file to RGB, upright by its EXIF orientation.

    Args:
        path: JPEG, PNG, WebP, BMP or TIFF.
        max_pixels: an image of more is refused before it is decoded.
    Returns:
        An RGB image, fully decoded.
    Raises:
        DataError: missing, empty, truncated, another format, or more than `max_pixels`; the text names the file.
    """
    return _decoded(Path(path), max_pixels)


def image_wh(path: str | Path, *, decode: bool = False, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of an upright image, from its header.

    Args:
        path: the file.
        decode: read all of it, a JPEG at an eighth of its size: that finds what is damaged, at little cost.
        max_pixels: see `read_image`; it is asked for without `decode`, too, for a PNG's orientation may stand behind
            its pixels.
    Raises:
        DataError: see `read_image`; without `decode` nothing behind the header is looked at.
    """
    with opened_image(Path(path), max_pixels=max_pixels) as image:
        width, height = image.size
        turned = image.getexif().get(ORIENTATION, 1) in TURNED
        if decode:
            image.draft("L", (max(1, width // 8), max(1, height // 8)))
            image.load()
    return (height, width) if turned else (width, height)


def to_rgb(image: Image.Image) -> Image.Image:
    """A PIL image of any mode upright by EXIF, transparency on white, 8-bit RGB."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _scale_to_bytes(image)
    if image.mode == "LAB":
        image = _lab_to_rgb(image)
    if image.mode in ("La", "RGBa"):  # colours multiplied by their opacity
        image = image.convert(image.mode.upper())
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


def _decoded(source: Path | bytes, max_pixels: int) -> Image.Image:
    with opened_image(source, max_pixels=max_pixels) as image:
        return to_rgb(image)


@contextlib.contextmanager
def opened_image(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The image of a file or of a file's content, not decoded yet.

    Raises:
        DataError: see `read_image`; also for whatever goes wrong while it is open.
    """
    path = source if isinstance(source, Path) else None
    with (
        _errors_named(str(path) if path else f"image of {len(source):,} bytes"),  # type: ignore[arg-type]
        _stream(source) as file,
        _identified(file, str(path or "")) as image,
    ):
        _require_pixels(image.size, max_pixels)
        yield image


def _stream(source: Path | bytes) -> BinaryIO:
    if isinstance(source, bytes):
        if not source:
            raise DataError("there is nothing in it")
        return io.BytesIO(source)
    if not source.is_file():
        raise DataError("not a file" if source.exists() else "no such image file")
    if source.stat().st_size == 0:
        raise DataError("the file is empty")
    return source.open("rb")


def _identified(file: BinaryIO, name: str) -> Image.Image:
    """What `PIL.Image.open` does, but for Pillow's own limit of pixels, which is a global of its module."""
    start = file.read(16)
    for each in FORMATS:
        make, accepts = Image.OPEN[each]
        if accepts and accepts(start) is not True:
            continue
        file.seek(0)
        with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):  # as Pillow's plugins refuse a file
            return make(file, name)
    raise UnidentifiedImageError


@contextlib.contextmanager
def _errors_named(name: str) -> Iterator[None]:
    """Whatever goes wrong with an image becomes a `DataError` that begins with its name."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except UnidentifiedImageError:
        raise DataError(f"{name}: not an image of a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError as error:  # a limit of Pillow inside of one format
        raise DataError(f"{name}: refused as a decompression bomb: {error}") from None
    except MemoryError:
        raise DataError(f"{name}: there is not enough memory to decode it") from None
    except Exception as error:  # decoders raise anything on damaged files
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{name}: cannot be read: {error.strerror}") from None
        raise DataError(f"{name}: damaged image: {error}") from None


def _require_pixels(size_wh: tuple[int, int], max_pixels: int) -> None:
    width, height = size_wh
    if width * height == 0:
        raise DataError("an image has at least 1 x 1 pixels")
    if width * height > max_pixels:
        raise DataError(
            f"{width} x {height} is more than {max_pixels:,} pixels, refused as a decompression bomb: "
            "a higher max_pixels takes it"
        )


def _content(file: Any) -> bytes:
    """All of an open file."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # a stream that cannot seek is read as it stands
        file.seek(0)
    content = file.read()
    if not isinstance(content, bytes):
        raise DataError(f"{EXPECTED}; got a file whose content is {type(content).__name__}: open it with mode 'rb'")
    return content


def _tensor_pixels(tensor: Any) -> np.ndarray:
    """(3, H, W) uint8 of any library whose tensors have `detach`, `cpu` and `numpy` -> (H, W, 3)."""
    if str(tensor.dtype) != "torch.uint8" or tensor.ndim != 3 or tensor.shape[0] != 3 or 0 in tensor.shape:
        raise DataError(_refusal(tensor))
    return tensor.detach().cpu().numpy().transpose(1, 2, 0)


def _scale_to_bytes(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    top = 65535.0 if image.mode.startswith("I") else max(float(values.max()), 1e-6)
    return Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8))


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    """Pillow converts every mode to RGB but this one, CIE L*a*b* of white D50."""
    from PIL import ImageCms

    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")  # type: ignore[return-value]


def _refusal(picture: Any) -> str:
    """What was expected, what came, and what to do."""
    if isinstance(picture, list | tuple):
        return f"{EXPECTED}; got a {type(picture).__name__} of {len(picture)}: several images go to `batch`"
    shape, dtype = getattr(picture, "shape", None), getattr(picture, "dtype", None)
    if shape is None or dtype is None:
        return f"{EXPECTED}; got {type(picture).__name__}"
    shape, values = tuple(shape), _value_range(picture)
    got = f"{EXPECTED}; got {str(dtype).removeprefix('torch.')} {type(picture).__name__} of shape {shape}"
    if values:
        got += f" with values {values[0]:g}..{values[1]:g}"
    return got + _advice(shape, str(dtype), values, last=isinstance(picture, np.ndarray))


def _value_range(picture: Any) -> tuple[float, float] | None:
    try:
        values = picture.detach() if hasattr(picture, "detach") else picture
        return float(values.min()), float(values.max())
    except (TypeError, ValueError, RuntimeError):  # of no values, of texts, of complex numbers
        return None


def _advice(shape: tuple[int, ...], dtype: str, values: tuple[float, float] | None, *, last: bool) -> str:
    """What makes an array or tensor acceptable; `last`: its channels come last."""
    if 0 in shape:
        return ": an image has at least 1 x 1 pixels"
    if "float" in dtype and values and values[0] >= 0 and values[1] <= 1:
        return ": multiply by 255, round, and convert to uint8"
    if not dtype.endswith("uint8"):
        return ": bring its values to 0..255 and convert to uint8"
    if len(shape) == 4:
        return ": several images go to `batch`, each by itself"
    if len(shape) == 3 and last and shape[0] in (1, 3, 4):
        return ": channels come last in an array, image.transpose(1, 2, 0)"
    if len(shape) == 3 and not last and shape[2] in (1, 3, 4):
        return ": channels come first in a tensor, image.permute(2, 0, 1)"
    return ""
