"""Deltas by hand: eq. 2 of Faster R-CNN."""

from __future__ import annotations

import math

import pytest
import torch

from fpnkit.errors import ShapeError
from fpnkit.ops.codec import MAX_LOG_SIZE, decode_deltas, encode_boxes

RPN = (1.0, 1.0, 1.0, 1.0)
ROI = (10.0, 10.0, 5.0, 5.0)
ANCHOR = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
BOX = torch.tensor([[5.0, 10.0, 25.0, 30.0]])
"""Centre 10 right and 10 below the anchor's, twice as wide, as high."""


@pytest.mark.parametrize(
    ("weights", "deltas"),
    [(RPN, [1.0, 0.5, math.log(2), 0.0]), (ROI, [10.0, 5.0, 5 * math.log(2), 0.0])],
    ids=["rpn", "roi"],
)
def test_encode_and_decode_by_hand(weights, deltas):
    wanted = torch.tensor([deltas])
    torch.testing.assert_close(encode_boxes(BOX, ANCHOR, weights=weights), wanted)
    torch.testing.assert_close(decode_deltas(wanted, ANCHOR, weights=weights), BOX)


def test_zero_deltas_give_the_anchor():
    assert decode_deltas(torch.zeros(1, 4), ANCHOR, weights=ROI).tolist() == ANCHOR.tolist()


def test_decoded_sizes_are_capped_at_62_anchor_sizes():
    wide = decode_deltas(torch.tensor([[0.0, 0.0, 100.0, 100.0]]), ANCHOR, weights=RPN)[0]
    assert (wide[2] - wide[0]).item() == pytest.approx(10 * 1000 / 16, rel=1e-5)
    assert (wide[3] - wide[1]).item() == pytest.approx(20 * 1000 / 16, rel=1e-5)
    assert pytest.approx(math.log(62.5)) == MAX_LOG_SIZE


def test_tiny_sizes_are_not_capped():
    thin = decode_deltas(torch.tensor([[0.0, 0.0, -100.0, 0.0]]), ANCHOR, weights=RPN)[0]
    assert thin.tolist() == [5, 0, 5, 20]


def test_zero_size_boxes_and_anchors_stay_finite():
    point = torch.tensor([[4.0, 4.0, 4.0, 4.0]])
    for box, anchor in [(point, ANCHOR), (BOX, point), (point, point)]:
        deltas = encode_boxes(box, anchor, weights=ROI)
        assert deltas.isfinite().all()
        assert decode_deltas(deltas, anchor, weights=ROI).isfinite().all()


@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4), (0, 3, 4)])
def test_no_boxes(shape):
    nothing = torch.zeros(shape)
    assert encode_boxes(nothing, nothing, weights=RPN).shape == shape
    assert decode_deltas(nothing, nothing, weights=RPN).shape == shape


def test_leading_dimensions_are_kept():
    boxes = torch.rand(2, 3, 4)
    boxes[..., 2:] += 1
    deltas = encode_boxes(boxes, boxes.flip(1), weights=ROI)
    assert deltas.shape == (2, 3, 4)
    assert torch.equal(deltas[1], encode_boxes(boxes[1], boxes[1].flip(0), weights=ROI))


def test_different_lengths_are_refused():
    with pytest.raises(ShapeError) as error:
        encode_boxes(torch.zeros(3, 4), torch.zeros(5, 4), weights=RPN)
    assert str(error.value) == "expected one row of boxes for each anchor, got 3 rows for 5 anchors"
    with pytest.raises(ShapeError) as error:
        decode_deltas(torch.zeros(2, 7, 4), torch.zeros(5, 4), weights=RPN)
    assert str(error.value) == "expected one row of deltas for each anchor, got 7 rows for 5 anchors"
