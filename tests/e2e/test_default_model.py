"""The model inside the package: intact, small, and able to do its job on the shipped photographs."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

import fpnkit
from fpnkit.data.images import read_image
from fpnkit.data.samples import FOLDER, chart_places, sample_images, scale_chart
from fpnkit.errors import CheckpointError
from fpnkit.ops.boxes import iou
from fpnkit.zoo import shipped


@pytest.fixture(scope="module")
def detector():
    return fpnkit.load("default")


@pytest.mark.parametrize("name", shipped.SHA256)
def test_shipped_files_are_small_and_have_the_recorded_hash(name):
    content = (shipped.FOLDER / f"{name}.safetensors").read_bytes()
    assert len(content) <= 25_000_000
    assert hashlib.sha256(content).hexdigest() == shipped.SHA256[name]


@pytest.mark.parametrize("path", sample_images(), ids=lambda path: path.stem)
def test_the_model_of_80_classes_knows_a_person(path):
    everything = fpnkit.load("coco80")
    assert len(everything.classes) == 80
    result = everything(path)
    assert result.labels[0] == "person"
    assert result.scores[0] > 0.8


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
    width, height = result.size
    left, top, right, bottom = result.boxes_xyxy[0].tolist()
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_finds_the_same_person_at_many_scales_on_several_levels(detector):
    photo = read_image(FOLDER / "astronaut.jpg")
    result = detector(scale_chart(photo))
    person = torch.tensor([30.0, 5.0, 460.0, 512.0]) / 512
    copies = torch.tensor([[x, y, x, y] for x, y, _ in chart_places()]) + person * torch.tensor(
        [[side] for _, _, side in chart_places()]
    )
    found = iou(copies, result.boxes_xyxy).amax(dim=1) > 0.5
    assert found.all()
    assert len(result) == len(copies)
    assert len(set(result.levels.tolist())) >= 2


def test_path_picture_array_and_tensor_give_the_same(detector):
    path = FOLDER / "astronaut.jpg"
    picture = Image.open(path)
    array = np.array(picture)
    first, *others = (
        detector(each, min_score=0.3) for each in (path, picture, array, torch.from_numpy(array).movedim(-1, 0))
    )
    assert len(first) > 0
    for other in others:
        torch.testing.assert_close(other.boxes_xyxy, first.boxes_xyxy)
        torch.testing.assert_close(other.scores, first.scores)


def test_a_batch_gives_what_single_images_of_its_size_give(detector):
    paths = [FOLDER / "astronaut.jpg", FOLDER / "photographer.jpg"]
    for path, result in zip(paths, detector.batch(paths), strict=True):
        alone = detector(path)
        assert len(alone) == len(result)
        torch.testing.assert_close(alone.boxes_xyxy, result.boxes_xyxy, atol=0.01, rtol=0)
