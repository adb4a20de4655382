"""One rule for every kind of picture: the same photograph in each of them gives the same pixels."""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from torchvision import tv_tensors

from fpnkit.data.annotated import AnnotatedImages, Record
from fpnkit.data.augment import CopyPaste
from fpnkit.data.images import as_rgb_array, image_wh, read_image
from fpnkit.data.loader import DetectionDataset
from fpnkit.data.preprocess import Preprocess, PreprocessConfig
from fpnkit.data.read import check_images, read_record
from fpnkit.data.samples import FOLDER
from fpnkit.errors import DataError

PHOTO = skimage.data.astronaut()[:200, :150].copy()


def encoded(picture: Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a hundred bytes whose header promises many pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


class Stream(io.RawIOBase):
    """An upload: bytes that can be read once, without seeking."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self._content.readinto(buffer)


def read_only(pixels: np.ndarray) -> np.ndarray:
    pixels = pixels.copy()
    pixels.flags.writeable = False
    return pixels


def at_its_end(content: bytes) -> io.BytesIO:
    file = io.BytesIO(content)
    file.read()
    return file


PNG = encoded(Image.fromarray(PHOTO))
OPAQUE = np.concatenate([PHOTO, np.full((200, 150, 1), 255, dtype=np.uint8)], axis=2)
CHANNELS_FIRST = torch.from_numpy(PHOTO.transpose(2, 0, 1).copy())

SAME = {
    "bytes": PNG,
    "bytearray": bytearray(PNG),
    "memoryview": memoryview(PNG),
    "BytesIO": io.BytesIO(PNG),
    "BytesIO that was just written": at_its_end(PNG),
    "stream without seek": Stream(PNG),
    "PIL RGB": Image.fromarray(PHOTO),
    "PIL RGBA": Image.fromarray(OPAQUE),
    "PIL RGBX": Image.frombytes("RGBX", (150, 200), OPAQUE.tobytes()),
    "PIL RGBa": Image.fromarray(OPAQUE).convert("RGBa"),
    "PIL, not decoded yet": Image.open(io.BytesIO(PNG)),
    "array": PHOTO,
    "read-only array": read_only(PHOTO),
    "mirrored view": PHOTO[:, ::-1].copy()[:, ::-1],
    "BGR view, as of OpenCV": PHOTO[:, :, ::-1].copy()[:, :, ::-1],
    "Fortran order": np.asfortranarray(PHOTO),
    "RGBA array": OPAQUE,
    "read-only RGBA array": read_only(OPAQUE),
    "tensor": CHANNELS_FIRST,
    "tensor, channels last in memory": torch.from_numpy(PHOTO.copy()).permute(2, 0, 1),
    "tv_tensor": tv_tensors.Image(CHANNELS_FIRST),
}


@pytest.mark.parametrize("kind", SAME)
def test_every_kind_gives_the_same_pixels(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = as_rgb_array(SAME[kind])
        torch.from_numpy(found)  # warns of arrays that cannot be written to
    np.testing.assert_array_equal(found, PHOTO)
    assert (found.dtype, found.flags.c_contiguous, found.flags.writeable) == (np.uint8, True, True)


def test_paths_and_open_files(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(PNG)
    with path.open("rb") as file:
        for picture in (path, str(path), file):
            np.testing.assert_array_equal(as_rgb_array(picture), PHOTO)
    with path.open(encoding="latin-1") as file, pytest.raises(DataError, match="open it with mode 'rb'"):
        as_rgb_array(file)


def test_shipped_photographs_are_read_as_pillow_reads_them():
    for path in sorted(FOLDER.glob("*.jpg")):
        np.testing.assert_array_equal(as_rgb_array(path), np.asarray(Image.open(path).convert("RGB")))
        np.testing.assert_array_equal(as_rgb_array(path.read_bytes()), as_rgb_array(path))


def test_grey_becomes_three_equal_channels():
    grey = np.asarray(Image.fromarray(PHOTO).convert("L"))
    for picture in (grey, grey[:, :, None], Image.fromarray(grey), read_only(grey)):
        np.testing.assert_array_equal(as_rgb_array(picture), np.stack([grey] * 3, axis=2))


def test_lab_and_hsv_are_seen_in_their_colours():
    """L*a*b* by scikit-image's formulas; Pillow stores L in 0..255 and a and b as signed bytes."""
    hsv = as_rgb_array(Image.fromarray(PHOTO).convert("HSV")).astype(int)
    assert np.abs(hsv - PHOTO).max() <= 4
    values = (skimage.color.rgb2lab(PHOTO) * [2.55, 1, 1]).round().astype(int).astype(np.uint8)
    difference = np.abs(as_rgb_array(Image.frombytes("LAB", (150, 200), values.tobytes())).astype(int) - PHOTO)
    assert difference.mean() < 1.5
    assert np.percentile(difference, 99) <= 8


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "YCbCr", "LA", "La", "PA", "I", "F"])
def test_every_mode_of_pillow_is_taken(mode):
    picture = Image.fromarray(PHOTO)
    picture = picture.convert("LA").convert("La") if mode == "La" else picture.convert(mode)
    if mode in ("I", "F"):
        picture = Image.fromarray(np.asarray(picture) * np.array(257, dtype=np.asarray(picture).dtype))
    found = as_rgb_array(picture).astype(int)
    grey = np.asarray(Image.fromarray(PHOTO).convert("L")).astype(int)
    assert np.abs(found.mean() - grey.mean()) < 6
    assert np.corrcoef(found.mean(axis=2).ravel(), grey.ravel())[0, 1] > 0.97


def test_transparent_pixels_are_white():
    clear = OPAQUE.copy()
    clear[:50, :, 3] = 0
    for picture in (clear, Image.fromarray(clear), encoded(Image.fromarray(clear))):
        found = as_rgb_array(picture)
        assert (found[:50] == 255).all()
        np.testing.assert_array_equal(found[50:], PHOTO[50:])


def test_pil_images_are_turned_by_exif():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.fromarray(PHOTO), exif=exif)
    for picture in (content, Image.open(io.BytesIO(content))):
        np.testing.assert_array_equal(as_rgb_array(picture), np.rot90(PHOTO, -1))


REFUSED = {
    "float in 0..1": (PHOTO / 255.0, r"got float64 ndarray of shape (200, 150, 3) with values 0..1: multiply by 255"),
    "float32 in 0..255": (
        PHOTO.astype(np.float32),
        "got float32 ndarray of shape (200, 150, 3) with values 0..255: bring its values to 0..255 and convert",
    ),
    "uint16": (PHOTO.astype(np.uint16) * 257, "got uint16 ndarray of shape (200, 150, 3) with values 0..65535"),
    "bool": (PHOTO > 99, "got bool ndarray of shape (200, 150, 3) with values 0..1"),
    "channels first": (PHOTO.transpose(2, 0, 1), "shape (3, 200, 150) with values 0..255: channels come last"),
    "two channels": (PHOTO[:, :, :2], "shape (200, 150, 2)"),
    "a batch": (PHOTO[None], "shape (1, 200, 150, 3) with values 0..255: several images go to `batch`"),
    "a row": (PHOTO[0, :, 0], "shape (150,)"),
    "no pixel": (PHOTO[:0], "shape (0, 150, 3): an image has at least 1 x 1 pixels"),
    "texts": (np.array([["a", "b"]]), "got <U1 ndarray of shape (1, 2)"),
    "float tensor": (CHANNELS_FIRST / 255, "got float32 Tensor of shape (3, 200, 150) with values 0..1: multiply by"),
    "bf16 that requires grad": (
        (CHANNELS_FIRST / 255).bfloat16().requires_grad_(),
        "got bfloat16 Tensor of shape (3, 200, 150) with values 0..1",
    ),
    "tensor, channels last": (torch.from_numpy(PHOTO), "shape (200, 150, 3) with values 0..255: channels come first"),
    "a batch tensor": (CHANNELS_FIRST[None], "shape (1, 3, 200, 150) with values 0..255: several images go to `batch`"),
    "list": ([PHOTO, PHOTO], "got a list of 2: several images go to `batch`"),
    "tuple": (("a.jpg", "b.jpg", "c.jpg"), "got a tuple of 3: several images go to `batch`"),
    "nothing": (None, "got NoneType"),
    "a number": (3, "got int"),
    "no bytes": (b"", "image of 0 bytes: there is nothing in it"),
    "bytes of a text": (b"dear diary", "image of 10 bytes: not an image of a known format"),
    "half a file": (PNG[: len(PNG) // 2], f"image of {len(PNG) // 2:,} bytes: damaged image"),
    "PIL, damaged": (Image.open(io.BytesIO(PNG[: len(PNG) // 2])), "PIL image of mode RGB: damaged image"),
    "PIL, empty": (Image.new("RGB", (0, 9)), "PIL image of mode RGB: an image has at least 1 x 1 pixels"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_picture_is_refused_with_what_came(kind):
    picture, reason = REFUSED[kind]
    with pytest.raises(DataError) as caught:
        as_rgb_array(picture)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_on_a_gpu():
    np.testing.assert_array_equal(as_rgb_array(CHANNELS_FIRST.cuda()), PHOTO)


def test_reading_in_threads_leaves_the_filters_of_warnings(tmp_path):
    """They belong to the whole process, and those who set them in threads mix them up."""
    (tmp_path / "photo.png").write_bytes(PNG)
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(as_rgb_array, [tmp_path / "photo.png"] * 200))
    assert warnings.filters == before


class TestMaxPixels:
    @pytest.mark.parametrize("kind", ["path", "bytes", "BytesIO", "PIL RGB", "PIL, not decoded yet"])
    def test_more_are_refused_and_the_limit_is_named(self, kind, tmp_path):
        (tmp_path / "photo.png").write_bytes(PNG)
        fresh = {"path": tmp_path / "photo.png", "PIL, not decoded yet": Image.open(io.BytesIO(PNG))}
        picture = fresh.get(kind) or SAME[kind]
        message = "150 x 200 is more than 29,999 pixels, refused as a decompression bomb: a higher max_pixels takes it"
        with pytest.raises(DataError, match=message):
            as_rgb_array(picture, max_pixels=29_999)
        assert as_rgb_array(picture, max_pixels=30_000).shape == PHOTO.shape

    def test_all_that_read_images_take_it(self, tmp_path):
        path = tmp_path / "photo.png"
        path.write_bytes(PNG)
        record = Record(image_id=1, path=path, width=150, height=200)
        data = AnnotatedImages((record,), ("thing",), (1,), tmp_path)
        preprocess = Preprocess(PreprocessConfig(short_side=64, long_side=96, mean=(0.0,) * 3, std=(1.0,) * 3))
        calls = (
            lambda limit: read_image(path, max_pixels=limit),
            lambda limit: image_wh(path, decode=True, max_pixels=limit),
            lambda limit: read_record(record, max_pixels=limit),
            lambda limit: check_images(data, max_pixels=limit),
            lambda limit: DetectionDataset(data, preprocess, max_pixels=limit)[0, 0],
        )
        for call in calls:
            call(30_000)
            with pytest.raises(DataError, match=r"photo\.png: .*more than 100 pixels"):
                call(100)
        assert CopyPaste(data, None, 1.0, max_pixels=100).max_pixels == 100

    def test_it_can_be_raised_beyond_the_limit_of_pillow(self, tmp_path):
        """Pillow refuses 179 million pixels by a global of its module, which stays as it is."""
        path = tmp_path / "satellite.png"
        path.write_bytes(png_claiming(20_000, 20_000))
        limit = Image.MAX_IMAGE_PIXELS
        for read in (read_image, image_wh):
            with pytest.raises(DataError, match="20000 x 20000 is more than 100,000,000 pixels"):
                read(path)
            with pytest.raises(DataError, match="damaged image"):  # it is decoded now, and holds nothing
                read(path, max_pixels=400_000_000)
        assert limit == Image.MAX_IMAGE_PIXELS
