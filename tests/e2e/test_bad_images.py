"""Every image that cannot be used is refused in one line that names it and says why."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from fpnkit.data.images import read_image
from fpnkit.errors import DataError

pytestmark = pytest.mark.usefixtures("loaded")


def encoded(size=(64, 48), format="JPEG", **options) -> bytes:
    file = BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, format, **options)
    return file.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a hundred bytes whose header promises many pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


BAD = {
    "empty.jpg": (b"", "the file is empty"),
    "truncated.jpg": (encoded()[:-300], "truncated"),
    "truncated.png": (encoded(format="PNG")[:-60], "damaged image"),
    "only-a-header.jpg": (encoded()[:20], "not an image of a known format"),
    "text.jpg": (b"dear diary\n" * 99, "not an image of a known format"),
    "json.png": (b'{"images": []}', "not an image of a known format"),
    "bomb.png": (png_claiming(50_000, 50_000), "decompression bomb"),
    "slightly-too-large.png": (png_claiming(10_001, 10_000), "10001 x 10000 is more than 100,000,000 pixels"),
    "animation.gif": (encoded(format="GIF"), "not an image of a known format"),
    "gif-named.jpg": (encoded(format="GIF"), "not an image of a known format"),
    "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not an image of a known format"),
    "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_refused(name, tmp_path, cli):
    content, reason = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    cli("predict", path, "--out", tmp_path / "out").refuses(3, path, reason)
    assert list((tmp_path / "out").iterdir()) == []


def test_missing_file_is_refused(tmp_path, cli):
    cli("predict", tmp_path / "no.jpg", "--out", tmp_path / "out").refuses(3, "no.jpg: no such image file")


def test_name_longer_than_the_system_allows_is_refused(tmp_path, cli):
    cli("predict", tmp_path / ("x" * 300), "--out", tmp_path / "out").refuses(3, "xxx: cannot be read: File name too")


def test_folder_without_images_is_refused(tmp_path, cli):
    (tmp_path / "folder.jpg").mkdir()
    cli("predict", tmp_path / "folder.jpg", "--out", tmp_path / "out").refuses(3, "folder.jpg: the folder holds no")


def test_folder_where_the_library_expects_a_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="not a file"):
        read_image(tmp_path)


def test_bad_files_among_good_ones_are_named_and_skipped(tmp_path, cli, photo):
    for name, (content, _) in BAD.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "nothing").mkdir()
    paths = [photo, tmp_path / "no.jpg", tmp_path / "nothing", *(tmp_path / name for name in BAD)]
    outcome = cli("predict", *paths, "--out", tmp_path / "out")
    assert outcome.code == 4
    lines = outcome.err.splitlines()
    assert len(lines) == len(paths) - 1
    for path, line in zip(sorted(map(str, paths[1:])), sorted(lines), strict=True):
        assert line.startswith(f"skipped: {path}: ")
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["photo.annotated.jpg", "predictions.json"]


def test_several_bad_files_and_no_good_one_end_as_invalid_data(tmp_path, cli):
    outcome = cli("predict", tmp_path / "a.jpg", tmp_path / "b.jpg", "--out", tmp_path / "out")
    assert outcome.code == 3
    assert "none of 2 images could be read" in outcome.err.splitlines()[-1]


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_random_damage_is_a_data_error_and_nothing_else(format, tmp_path):
    random = np.random.default_rng(0)
    whole = np.frombuffer(encoded(format=format, exif=Image.Exif().tobytes()), dtype=np.uint8)
    for _ in range(150):
        damaged = whole.copy()
        places = random.integers(0, min(len(whole), random.choice([64, 512, len(whole)])), random.integers(1, 9))
        damaged[places] = random.integers(0, 256, len(places))
        path = tmp_path / "damaged"
        path.write_bytes(damaged[: random.integers(len(whole) // 2, len(whole) + 1)].tobytes())
        try:
            assert read_image(path).mode == "RGB"
        except DataError as error:
            assert str(path) in str(error)


def rotated_photo(path) -> None:
    """Stored lying, 40 wide and 20 high, to be shown standing: red on top."""
    lying = Image.new("RGB", (40, 20), "blue")
    lying.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(path, exif=exif, quality=95)


def test_orientation_of_a_camera_is_honoured(tmp_path, cli, read_json):
    rotated_photo(tmp_path / "standing.jpg")
    picture = read_image(tmp_path / "standing.jpg")
    assert picture.size == (20, 40)
    assert picture.getpixel((10, 5))[0] > 200
    assert cli("predict", tmp_path / "standing.jpg", "--out", tmp_path / "out").code == 0
    entry = read_json(tmp_path / "out" / "predictions.json")[0]
    assert (entry["width"], entry["height"]) == (20, 40)
    assert Image.open(tmp_path / "out" / "standing.annotated.jpg").size == (20, 40)


def ramp(mode: str) -> Image.Image:
    """Dark to light from top to bottom."""
    column = np.linspace(0, 1, 64)[:, None].repeat(48, axis=1)
    if mode == "I;16":
        return Image.fromarray((column * 65535).astype(np.uint16))
    if mode in ("I", "F"):
        return Image.fromarray((column * 65535).astype(np.int32 if mode == "I" else np.float32))
    grey = Image.fromarray((column * 255).astype(np.uint8))
    return grey.convert("RGB").convert(mode) if mode != "L" else grey


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("L", "grey.png"),
        ("L", "grey.jpg"),
        ("1", "black-and-white.png"),
        ("LA", "grey-alpha.png"),
        ("P", "palette.png"),
        ("RGBA", "alpha.png"),
        ("RGBA", "alpha.webp"),
        ("I;16", "sixteen-bit.png"),
        ("I", "thirty-two-bit.tif"),
        ("F", "float.tif"),
        ("CMYK", "cmyk.jpg"),
        ("YCbCr", "ycbcr.tif"),
    ],
)
def test_every_usual_pixel_format_is_read_as_it_looks(mode, name, tmp_path):
    ramp(mode).save(tmp_path / name)
    pixels = np.asarray(read_image(tmp_path / name)).astype(int)
    assert pixels.shape == (64, 48, 3)
    assert pixels[:8].mean() < 40
    assert pixels[-8:].mean() > 215


def test_transparency_is_shown_on_white(tmp_path):
    for name, picture in {
        "alpha.png": Image.new("RGBA", (8, 8), (255, 0, 0, 0)),
        "grey-alpha.png": Image.new("LA", (8, 8), (0, 0)),
    }.items():
        picture.save(tmp_path / name)
        assert read_image(tmp_path / name).getpixel((4, 4)) == (255, 255, 255)
    palette = Image.new("P", (8, 8), 0)
    palette.save(tmp_path / "palette.png", transparency=0)
    assert read_image(tmp_path / "palette.png").getpixel((4, 4)) == (255, 255, 255)


def test_values_that_are_not_numbers_in_a_float_image_do_no_harm(tmp_path):
    values = np.full((8, 8), 100.0, dtype=np.float32)
    values[0, 0], values[1, 1] = np.nan, np.inf
    Image.fromarray(values).save(tmp_path / "holes.tif")
    pixels = np.asarray(read_image(tmp_path / "holes.tif"))
    assert pixels[4, 4].tolist() == [255, 255, 255]
    assert pixels[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 2)])
def test_tiny_and_extreme_images_work(size, tmp_path, cli, read_json):
    Image.new("RGB", size, "red").save(tmp_path / "odd.png")
    assert cli("predict", tmp_path / "odd.png", "--out", tmp_path / "out", "--min-score", 0).code == 0
    entry = read_json(tmp_path / "out" / "predictions.json")[0]
    assert (entry["width"], entry["height"]) == size
    for detection in entry["detections"]:
        left, top, right, bottom = detection["box_xyxy"]
        assert 0 <= left <= right <= size[0]
        assert 0 <= top <= bottom <= size[1]


def test_two_picture_files_of_cameras_are_read(tmp_path):
    first, second = Image.new("RGB", (16, 8), "red"), Image.new("RGB", (16, 8), "blue")
    first.save(tmp_path / "stereo.jpg", format="MPO", save_all=True, append_images=[second], quality=95)
    assert read_image(tmp_path / "stereo.jpg").getpixel((8, 4))[0] > 240


def test_what_pillow_warns_of_is_not_shown(tmp_path, start):
    """An image with damaged EXIF is read, and the terminal stays clean."""
    (tmp_path / "yolo" / "images").mkdir(parents=True)
    (tmp_path / "yolo" / "data.yaml").write_text("train: images\nnames: [cat]\n")
    damaged = encoded(exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    (tmp_path / "yolo" / "images" / "a.jpg").write_bytes(damaged)
    with pytest.warns(UserWarning, match="EXIF"):
        assert read_image(tmp_path / "yolo" / "images" / "a.jpg").size == (64, 48)
    process = start("convert", tmp_path / "yolo", "--to", "coco", "--out", tmp_path / "out")
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
