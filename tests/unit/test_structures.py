"""The values that travel, and the tree of errors."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError

import pytest
import torch

from fpnkit import errors
from fpnkit.errors import ConfigError
from fpnkit.outputs import OutputSpec
from fpnkit.structures import Detections, ImageBatch, LevelSpec, PixelBatch, Proposals, Targets


def detections() -> Detections:
    """Two images with three slots each; image 0 has two detections, image 1 none."""
    return Detections(
        boxes_xyxy=torch.arange(24.0).reshape(2, 3, 4),
        scores=torch.tensor([[0.9, 0.8, 0.0], [0.0, 0.0, 0.0]]),
        labels=torch.tensor([[1, 2, 0], [0, 0, 0]]),
        valid=torch.tensor([[True, True, False], [False, False, False]]),
        more={"levels": torch.tensor([[2, 3, 2], [2, 2, 2]]), "codes": torch.arange(12.0).reshape(2, 3, 2)},
    )


@pytest.mark.parametrize(("stride", "channels"), [(0, 8), (4, 0), (-4, 8)])
def test_level_spec_needs_a_positive_stride_and_width(stride, channels):
    with pytest.raises(ConfigError) as error:
        LevelSpec("c2", stride, channels)
    assert str(error.value) == (
        f"level c2 has stride {stride}, {channels} channels and serves ({stride},): all must be 1 or more"
    )


def test_values_are_frozen():
    with pytest.raises(FrozenInstanceError):
        LevelSpec("c2", 4, 8).stride = 8
    with pytest.raises(FrozenInstanceError):
        detections().scores = torch.zeros(1)


def test_index_takes_one_image_of_every_field():
    first = detections()[0]
    assert first.boxes_xyxy.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert first.labels.tolist() == [1, 2, 0]
    assert first.levels.tolist() == [2, 3, 2]
    assert first.codes.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert len(first) == 3


def test_slice_keeps_the_batch_dimension():
    batch = ImageBatch(torch.zeros(3, 3, 8, 8), torch.ones(3, 2), torch.ones(3, 2))
    assert len(batch) == 3
    assert len(batch[1:]) == 2
    assert batch[1:].images.shape == (2, 3, 8, 8)
    assert batch[:0].sizes_hw.shape == (0, 2)
    pixels = PixelBatch(torch.zeros(3, 8, 9, 3, dtype=torch.uint8), torch.ones(3, 2), torch.ones(3, 2))
    assert (len(pixels), len(pixels[1:])) == (3, 2)


def test_unpadded_keeps_the_valid_in_order():
    found = detections()[0].unpadded()
    assert found.labels.tolist() == [1, 2]
    assert found.more["levels"].tolist() == found.levels.tolist() == [2, 3]
    assert found.codes.tolist() == [[0, 1], [2, 3]]
    assert found.valid.all()
    assert len(detections()[1].unpadded()) == 0


def test_whatever_else_is_given_comes_along_by_name():
    found = detections()
    assert list(found.named()) == ["boxes_xyxy", "scores", "labels", "levels", "codes"]
    for other in (found[:, 1:], found[0][found[0].valid], found.to("cpu")[:1]):
        assert list(other.more) == ["levels", "codes"]
        assert {len(values) for values in other.named().values()} == {len(other.valid)}
    assert {values.device.type for values in found.to("meta").named().values()} == {"meta"}
    with pytest.raises(AttributeError, match="no 'marks': they have boxes_xyxy, scores, labels, levels, codes"):
        _ = found.marks
    assert copy.deepcopy(found).levels.tolist() == pickle.loads(pickle.dumps(found)).levels.tolist()


def test_an_index_reaches_the_scores_of_proposals_and_optional_seeds():
    proposals = Proposals(torch.zeros(2, 3, 4), torch.arange(6.0).reshape(2, 3), torch.ones(2, 3, dtype=torch.bool))
    assert proposals[1].scores.tolist() == [3, 4, 5]
    targets = Targets(torch.zeros(2, 1, 4), *[torch.zeros(2, 1)] * 3, seeds=torch.tensor([7, 8]))
    assert targets[1:].seeds.tolist() == [8]
    assert Targets(torch.zeros(2, 1, 4), *[torch.zeros(2, 1)] * 3)[0].seeds is None


@pytest.mark.parametrize(
    ("name", "singular"),
    [
        ("boxes_xyxy", "box_xyxy"),
        ("scores", "score"),
        ("labels", "label"),
        ("levels", "level"),
        ("centres_xy", "centre_xy"),
        ("codes", "code"),
        ("mask", "mask"),
    ],
)
def test_one_value_of_an_output_has_a_singular_name(name, singular):
    assert OutputSpec(name, "float32").singular == singular


def test_to_moves_every_tensor():
    targets = Targets(torch.zeros(1, 2, 4), torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2)).to("meta")
    moved = (targets.boxes_xyxy, targets.labels, targets.valid, targets.crowd)
    assert {each.device.type for each in moved} == {"meta"}


@pytest.mark.parametrize("name", ["ShapeError", "ConfigError", "DataError", "CheckpointError", "ExportError"])
def test_every_error_is_an_fpnkit_error(name):
    error = getattr(errors, name)
    assert issubclass(error, errors.FpnkitError)
    assert issubclass(error, ValueError) == (name in {"ShapeError", "ConfigError", "DataError"})
