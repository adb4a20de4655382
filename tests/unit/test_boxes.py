"""Box arithmetic against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from fpnkit.ops import boxes

SQUARE = [0.0, 0.0, 10.0, 10.0]


def test_area():
    assert boxes.area(torch.tensor([SQUARE, [1.0, 2.0, 4.0, 8.0], [3.0, 3.0, 3.0, 9.0]])).tolist() == [100, 18, 0]


@pytest.mark.parametrize(
    ("other", "overlap", "iou"),
    [
        ([5.0, 5.0, 15.0, 15.0], 25, 25 / 175),
        ([0.0, 0.0, 5.0, 5.0], 25, 0.25),
        (SQUARE, 100, 1.0),
        ([10.0, 0.0, 20.0, 10.0], 0, 0.0),
        ([30.0, 30.0, 40.0, 40.0], 0, 0.0),
        ([4.0, 4.0, 4.0, 4.0], 0, 0.0),
    ],
    ids=["corner", "inside", "same", "touching", "apart", "point inside"],
)
def test_overlap_of_two_boxes(other, overlap, iou):
    a, b = torch.tensor([SQUARE]), torch.tensor([other])
    assert boxes.intersection(a, b).item() == overlap
    assert boxes.iou(a, b).item() == pytest.approx(iou)


def test_iou_of_boxes_of_zero_size_is_zero_not_nan():
    points = torch.tensor([[3.0, 3.0, 3.0, 3.0], [3.0, 3.0, 3.0, 8.0]])
    assert boxes.iou(points, points).tolist() == [[0, 0], [0, 0]]
    assert boxes.coverage(points, torch.tensor([SQUARE])).tolist() == [[0], [0]]


def test_coverage_is_the_share_of_the_first_box():
    small, large = torch.tensor([[8.0, 0.0, 12.0, 10.0]]), torch.tensor([SQUARE])
    assert boxes.coverage(small, large).item() == pytest.approx(0.5)
    assert boxes.coverage(large, small).item() == pytest.approx(0.2)


@pytest.mark.parametrize("pairwise", [boxes.intersection, boxes.iou, boxes.coverage])
def test_pairwise_shapes(pairwise):
    assert pairwise(torch.rand(2, 3, 4), torch.rand(2, 5, 4)).shape == (2, 3, 5)
    assert pairwise(torch.zeros(0, 4), torch.rand(5, 4)).shape == (0, 5)
    assert pairwise(torch.rand(3, 4), torch.zeros(0, 4)).shape == (3, 0)
    assert pairwise(torch.zeros(0, 3, 4), torch.zeros(0, 5, 4)).shape == (0, 3, 5)


def test_clip_uses_the_size_of_each_image():
    box = torch.tensor([[[-5.0, -6.0, 90.0, 80.0]], [[-5.0, -6.0, 90.0, 80.0]]])
    clipped = boxes.clip(box, torch.tensor([[40.0, 60.0], [100.0, 50.0]]))
    assert clipped.tolist() == [[[0, 0, 60, 40]], [[0, 0, 50, 80]]]


def test_clip_puts_an_outside_box_on_the_border():
    clipped = boxes.clip(torch.tensor([[[70.0, 5.0, 90.0, 15.0]]]), torch.tensor([[40.0, 60.0]]))
    assert clipped.tolist() == [[[60, 5, 60, 15]]]
    assert boxes.area(clipped).item() == 0


def test_clip_of_nothing():
    assert boxes.clip(torch.zeros(2, 0, 4), torch.ones(2, 2)).shape == (2, 0, 4)
    assert boxes.clip(torch.zeros(0, 3, 4), torch.ones(0, 2)).shape == (0, 3, 4)


def test_min_side():
    assert boxes.min_side(
        torch.tensor([[0.0, 0.0, 3.0, 7.0], [0.0, 0.0, 7.0, 3.0], [5.0, 5.0, 5.0, 9.0]])
    ).tolist() == [
        3,
        3,
        0,
    ]
