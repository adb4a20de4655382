"""Anchors of section 4.1: one scale a level, three ratios, 15 in all."""

from __future__ import annotations

import math

import pytest
import torch

from fpnkit.errors import ConfigError
from fpnkit.heads import RPNConfig, RPNHead
from fpnkit.ops.anchors import AnchorGrid, cell_anchors
from fpnkit.ops.boxes import area
from fpnkit.structures import LevelSpec

RATIOS = (0.5, 1.0, 2.0)
LEVELS = tuple(LevelSpec(f"p{k}", 2**k, 4) for k in range(2, 7))


def maps(*sizes: tuple[int, int]) -> dict[str, torch.Tensor]:
    return {level.name: torch.zeros(1, 4, *size) for level, size in zip(LEVELS, sizes, strict=True)}


def test_cell_anchors_by_hand():
    long, short = 32 * math.sqrt(2) / 2, 32 / math.sqrt(2) / 2
    wanted = [[-long, -short, long, short], [-16, -16, 16, 16], [-short, -long, short, long]]
    torch.testing.assert_close(cell_anchors(32, RATIOS), torch.tensor(wanted))


@pytest.mark.parametrize("size", [32.0, 64.0, 128.0, 256.0, 512.0])
def test_all_ratios_have_the_same_area(size):
    anchors = cell_anchors(size, RATIOS)
    torch.testing.assert_close(area(anchors), torch.full((3,), size**2))
    sides = anchors[:, 2:] - anchors[:, :2]
    torch.testing.assert_close(sides[:, 1] / sides[:, 0], torch.tensor(RATIOS))


def test_grid_goes_row_by_row_with_ratios_innermost():
    cell = torch.tensor([[-1.0, -2.0, 1.0, 2.0], [-2.0, -1.0, 2.0, 1.0]])
    wanted = [
        [1, 0, 3, 4],
        [0, 1, 4, 3],
        [5, 0, 7, 4],
        [4, 1, 8, 3],
        [1, 4, 3, 8],
        [0, 5, 4, 7],
        [5, 4, 7, 8],
        [4, 5, 8, 7],
    ]
    assert AnchorGrid(cell, 2, 2, (4.0, 4.0), 0.5).all().tolist() == wanted


def test_grid_with_offset_zero_starts_at_the_origin_and_overhangs():
    grid = AnchorGrid(cell_anchors(8, (1.0,)), 1, 2, (4.0, 16.0), 0).all()
    assert grid.tolist() == [[-4, -4, 4, 4], [12, -4, 20, 4]]


def test_grid_steps_by_its_own_stride_in_each_direction():
    grid = AnchorGrid(torch.zeros(1, 4), 2, 2, (10.0, 3.0), 0).all()
    assert grid[:, :2].tolist() == [[0, 0], [3, 0], [0, 10], [3, 10]]


def test_an_empty_map_has_no_anchors():
    assert AnchorGrid(cell_anchors(8, RATIOS), 0, 5, (4.0, 4.0), 0.5).all().shape == (0, 4)


def test_some_anchors_are_those_of_all():
    grid = AnchorGrid(cell_anchors(8, RATIOS), 3, 5, (4.0, 6.0), 0.5)
    index = torch.tensor([[0, 44], [7, 20]])
    assert torch.equal(grid[index], grid.all()[index])


def test_the_paper_has_15_anchors():
    anchors = RPNHead(LEVELS).anchors(maps(*[(1, 1)] * 5), (64, 64))
    assert sum(len(each) for each in anchors) == 15
    sides = torch.cat([area(each).sqrt() for each in anchors])
    torch.testing.assert_close(sides, torch.tensor([32.0, 64, 128, 256, 512]).repeat_interleave(3))


def test_anchors_sit_in_the_middle_of_their_cells():
    anchors = RPNHead(LEVELS).anchors(maps((2, 3), (1, 2), (1, 1), (1, 1), (1, 1)), (8, 12))
    assert [len(each) for each in anchors] == [18, 6, 3, 3, 3]
    centres = (anchors[0][::3, :2] + anchors[0][::3, 2:]) / 2
    torch.testing.assert_close(centres, torch.tensor([[2.0, 2], [6, 2], [10, 2], [2, 6], [6, 6], [10, 6]]))


def test_declared_strides_are_used_unless_the_image_is_asked_for():
    odd = maps((25, 25), (13, 13), (7, 7), (4, 4), (2, 2))
    declared = RPNHead(LEVELS).anchors(odd, (100, 100))[4]
    assert (declared[3] - declared[0])[0].item() == 64
    derived = RPNHead(LEVELS, RPNConfig(strides_from_image=True)).anchors(odd, (100, 100))[4]
    assert (derived[3] - derived[0])[0].item() == 50


def test_anchors_can_be_rounded_to_whole_pixels():
    config = RPNConfig(round_anchors=True, anchor_offset=0.0)
    anchors = RPNHead(LEVELS, config).anchors(maps(*[(1, 1)] * 5), (64, 64))
    assert anchors[0].tolist() == [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]


def test_predictions_stand_in_the_order_of_their_anchors():
    """A head that multiplies each cell by the number of its output channel."""
    head = RPNHead([LevelSpec("p2", 4, 1)])
    torch.nn.init.dirac_(head.conv.weight)
    with torch.no_grad():
        head.objectness.weight.copy_(torch.arange(1.0, 4).reshape(3, 1, 1, 1))
        head.deltas.weight.copy_(torch.arange(1.0, 13).reshape(12, 1, 1, 1))
    cells = torch.arange(1.0, 7)
    (logits,), (deltas,) = head({"p2": cells.reshape(1, 1, 2, 3)})
    assert logits[0].tolist() == [cell * ratio for cell in range(1, 7) for ratio in (1, 2, 3)]
    assert torch.equal(deltas[0].flatten(), (cells[:, None] * torch.arange(1.0, 13)).flatten())
    assert deltas.shape == (1, 18, 4)


@pytest.mark.parametrize(("size", "ratios"), [(0, (1.0,)), (-8, (1.0,)), (8, (1.0, 0.0)), (8, ())])
def test_sizes_and_ratios_must_be_positive(size, ratios):
    with pytest.raises(ConfigError) as error:
        cell_anchors(size, ratios)
    assert str(error.value) == f"anchor size and ratios must be positive, got size {size} and ratios {ratios}"
