"""The values that travel, and the tree of errors."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch

from fpnkit import errors
from fpnkit.errors import ConfigError
from fpnkit.structures import Detections, ImageBatch, LevelSpec, Targets


def detections() -> Detections:
    """Two images with three slots each; image 0 has two detections, image 1 none."""
    return Detections(
        boxes_xyxy=torch.arange(24.0).reshape(2, 3, 4),
        scores=torch.tensor([[0.9, 0.8, 0.0], [0.0, 0.0, 0.0]]),
        labels=torch.tensor([[1, 2, 0], [0, 0, 0]]),
        levels=torch.tensor([[2, 3, 2], [2, 2, 2]]),
        valid=torch.tensor([[True, True, False], [False, False, False]]),
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
    assert len(first) == 3


def test_slice_keeps_the_batch_dimension():
    batch = ImageBatch(torch.zeros(3, 3, 8, 8), torch.ones(3, 2), torch.ones(3, 2))
    assert len(batch) == 3
    assert len(batch[1:]) == 2
    assert batch[1:].images.shape == (2, 3, 8, 8)
    assert batch[:0].sizes.shape == (0, 2)


def test_unpadded_keeps_the_valid_in_order():
    found = detections()[0].unpadded()
    assert found.labels.tolist() == [1, 2]
    assert found.valid.all()
    assert len(detections()[1].unpadded()) == 0


def test_to_moves_every_tensor():
    targets = Targets(torch.zeros(1, 2, 4), torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2)).to("meta")
    moved = (targets.boxes_xyxy, targets.labels, targets.valid, targets.crowd)
    assert {each.device.type for each in moved} == {"meta"}


@pytest.mark.parametrize("name", ["ShapeError", "ConfigError", "DataError", "CheckpointError", "ExportError"])
def test_every_error_is_an_fpnkit_error(name):
    error = getattr(errors, name)
    assert issubclass(error, errors.FpnkitError)
    assert issubclass(error, ValueError) == (name in {"ShapeError", "ConfigError", "DataError"})
