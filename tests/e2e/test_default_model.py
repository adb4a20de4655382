"""The model inside the package: intact, small, and able to do its job on the shipped photographs."""

import hashlib
import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import fpnkit
from fpnkit.data.images import read_image, to_rgb
from fpnkit.data.samples import FOLDER, chart_places, sample_images, scale_chart
from fpnkit.errors import CheckpointError, DataError
from fpnkit.inference.boxes import iou
from fpnkit.zoo import shipped


@pytest.fixture(scope="module")
def detector():
    return fpnkit.load("default")


@pytest.mark.parametrize("name", shipped.SHA256)
def test_shipped_files_are_small_and_have_the_recorded_hash(name):
    content = (shipped.FOLDER / f"{name}.safetensors").read_bytes()
    assert len(content) <= 25_000_000
    assert hashlib.sha256(content).hexdigest() == shipped.SHA256[name]


def test_the_model_of_80_classes_knows_a_person():
    everything = fpnkit.load("coco80")
    assert len(everything.classes) == 80
    for path in sample_images():
        result = everything(path)
        assert result.labels[0] == "person", path
        assert result.scores[0] > 0.8, path


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    content = bytearray((shipped.FOLDER / "default.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "default.safetensors").write_bytes(content)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match="were changed"):
        fpnkit.load("default")


@pytest.mark.parametrize("path", sample_images(), ids=lambda path: path.stem)
def test_finds_the_person_in_each_photograph(detector, path):
    result = detector(path)
    assert len(result) >= 1
    assert set(result.labels) == {"person"}
    assert result.scores[0] > 0.8
    width, height = result.size_wh
    left, top, right, bottom = result.boxes_xyxy[0].tolist()
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_finds_the_same_person_at_many_scales_on_several_levels(detector):
    photo = read_image(FOLDER / "astronaut.jpg")
    result = detector(scale_chart(photo))
    person = np.array([30.0, 5.0, 460.0, 512.0]) / 512
    copies = np.array([[x, y, x, y] + person * side for x, y, side in chart_places()])
    found = iou(copies, result.boxes_xyxy).max(axis=1) > 0.5
    assert found.all()
    assert len(result) == len(copies)
    assert len(set(result.levels.tolist())) >= 2


def encoded(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def read_only(pixels: np.ndarray) -> np.ndarray:
    pixels = pixels.copy()
    pixels.flags.writeable = False
    return pixels


SMALL = read_image(FOLDER / "astronaut.jpg").resize((300, 300))
PIXELS = np.array(SMALL)

KINDS = {
    "bytes": encoded(SMALL),
    "BytesIO": io.BytesIO(encoded(SMALL)),
    "PIL RGBA": SMALL.convert("RGBA"),
    "array": PIXELS,
    "read-only array": read_only(PIXELS),
    "mirrored view": PIXELS[:, ::-1].copy()[:, ::-1],
    "RGBA array": np.array(SMALL.convert("RGBA")),
    "tensor": torch.from_numpy(PIXELS.copy()).movedim(-1, 0),
}


@pytest.fixture(scope="module")
def wanted(detector, tmp_path_factory):
    """What is found in the file."""
    path = tmp_path_factory.mktemp("photo") / "small.png"
    SMALL.save(path)
    result = detector(path, min_score=0.3)
    assert (len(result) > 0, result.path) == (True, path)
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_gives_what_its_file_gives_without_a_warning(kind, detector, wanted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = detector(KINDS[kind], min_score=0.3)
    assert result.detections() == wanted.detections()
    assert (result.path, result.image.shape, result.image.dtype) == (None, (300, 300, 3), np.uint8)


@pytest.mark.parametrize("mode", ["LAB", "HSV", "CMYK", "L"])
def test_pictures_in_other_colour_spaces_are_seen_as_they_look(mode, detector):
    if mode == "LAB":
        from PIL import ImageCms

        spaces = (ImageCms.createProfile(name) for name in ("sRGB", "LAB"))
        picture = ImageCms.profileToProfile(SMALL, *spaces, outputMode="LAB")
    else:
        picture = SMALL.convert(mode)
    result = detector(picture)
    assert result.labels == ("person",)
    np.testing.assert_array_equal(result.image, to_rgb(picture))
    if mode != "L":
        assert abs(result.image.astype(int) - PIXELS).mean() < 6


def test_grey_pixels_with_and_without_a_channel_are_the_same(detector):
    grey = np.array(SMALL.convert("L"))
    plain, channel = detector(grey), detector(grey[:, :, None])
    assert plain.detections() == channel.detections() != []


def test_what_is_no_picture_is_refused_with_what_to_do(detector):
    for given, reason in (
        (PIXELS / 255, "multiply by 255, round, and convert to uint8"),
        (PIXELS.astype(np.float32), "bring its values to 0..255 and convert to uint8"),
        ([PIXELS, PIXELS], "several images go to `batch`"),
        (PIXELS[None], "several images go to `batch`"),
        (None, "got NoneType"),
    ):
        with pytest.raises(DataError, match=reason):
            detector(given)


def test_a_batch_gives_what_single_images_of_its_size_give(detector):
    paths = [FOLDER / "astronaut.jpg", FOLDER / "photographer.jpg"]
    for path, result in zip(paths, detector.batch(paths), strict=True):
        alone = detector(path)
        assert len(alone) == len(result)
        np.testing.assert_allclose(alone.boxes_xyxy, result.boxes_xyxy, atol=0.01)
