"""Box arithmetic and codec against slow references, and what a mirror must not change."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fpnkit.ops import boxes
from fpnkit.ops.codec import decode_deltas, encode_boxes

Box = tuple[float, float, float, float]
WIDTH = 640.0

corner = st.integers(-8000, 8000).map(lambda eighths: eighths / 8)
any_side = st.integers(0, 8000).map(lambda eighths: eighths / 8)
fair_side = st.integers(8, 400).map(lambda eighths: eighths / 8)
weights = st.sampled_from([(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])


def some_boxes(sides=any_side, low: int = 0):
    one = st.tuples(corner, corner, sides, sides).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
    return st.lists(one, min_size=low, max_size=6).map(lambda rows: torch.tensor(rows).reshape(-1, 4))


def slow_iou(a: Box, b: Box) -> float:
    across = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    union = area_a + area_b - across * down
    return across * down / union if union else 0.0


def mirror(boxes_xyxy: Tensor) -> Tensor:
    """Left-right mirror images in an image of `WIDTH`."""
    x1, y1, x2, y2 = boxes_xyxy.unbind(-1)
    return torch.stack([WIDTH - x2, y1, WIDTH - x1, y2], dim=-1)


@given(some_boxes(), some_boxes())
def test_iou_equals_a_slow_reference(a, b):
    found = boxes.iou(a, b)
    assert found.shape == (len(a), len(b))
    for row, first in zip(found.tolist(), a.tolist(), strict=True):
        assert row == pytest.approx([slow_iou(first, second) for second in b.tolist()], abs=1e-5)


@given(some_boxes(), some_boxes())
def test_iou_is_symmetric_and_in_0_to_1(a, b):
    found = boxes.iou(a, b)
    assert torch.equal(found, boxes.iou(b, a).T)
    assert ((found >= 0) & (found <= 1)).all()


@given(some_boxes(fair_side))
def test_a_box_with_area_has_iou_1_with_itself(a):
    assert torch.equal(boxes.iou(a, a).diagonal(), torch.ones(len(a)))


@given(some_boxes(), some_boxes())
def test_coverage_is_in_0_to_1_and_no_less_than_iou(a, b):
    found = boxes.coverage(a, b)
    assert ((found >= 0) & (found <= 1)).all()
    assert (found >= boxes.iou(a, b) - 1e-6).all()


@given(some_boxes(), st.integers(1, 900), st.integers(1, 900))
def test_clipping_stays_inside_and_repeats_itself(a, height, width):
    size = torch.tensor([[float(height), float(width)]])
    clipped = boxes.clip(a[None], size)
    assert (clipped >= 0).all()
    assert (clipped <= torch.tensor([width, height, width, height])).all()
    assert (boxes.area(clipped) >= 0).all()
    assert torch.equal(boxes.clip(clipped, size), clipped)


@given(some_boxes(fair_side, low=1), some_boxes(fair_side, low=1), weights)
def test_decoding_undoes_encoding(a, anchors, weights):
    count = min(len(a), len(anchors))
    a, anchors = a[:count], anchors[:count]
    decoded = decode_deltas(encode_boxes(a, anchors, weights=weights), anchors, weights=weights)
    torch.testing.assert_close(decoded, a, atol=1e-2, rtol=0)


@given(some_boxes(any_side, low=1), some_boxes(any_side, low=1), weights)
def test_codec_is_finite_for_all_boxes(a, anchors, weights):
    count = min(len(a), len(anchors))
    deltas = encode_boxes(a[:count], anchors[:count], weights=weights)
    assert deltas.isfinite().all()
    assert decode_deltas(deltas, anchors[:count], weights=weights).isfinite().all()


@given(some_boxes(fair_side, low=1), st.integers(0, 2**31))
def test_decoding_and_a_mirror_commute(anchors, seed):
    deltas = torch.randn(anchors.shape, generator=torch.Generator().manual_seed(seed))
    flipped = deltas * torch.tensor([-1.0, 1.0, 1.0, 1.0])
    one = (1.0, 1.0, 1.0, 1.0)
    there = decode_deltas(flipped, mirror(anchors), weights=one)
    torch.testing.assert_close(there, mirror(decode_deltas(deltas, anchors, weights=one)), atol=1e-2, rtol=1e-5)


@given(some_boxes(), some_boxes())
def test_iou_and_clipping_do_not_mind_a_mirror(a, b):
    torch.testing.assert_close(boxes.iou(mirror(a), mirror(b)), boxes.iou(a, b))
    size = torch.tensor([[480.0, WIDTH]])
    assert torch.equal(boxes.clip(mirror(a)[None], size), mirror(boxes.clip(a[None], size)))
