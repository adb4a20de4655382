"""Anchor coverage against every anchor, one by one."""

import dataclasses

import numpy as np
import torch

from fpnkit import zoo
from fpnkit.doctor.anchors import AnchorLayout, advice, anchor_layout, best_anchors, match_rate, suggestion
from fpnkit.ops.anchors import AnchorGrid, cell_anchors
from fpnkit.ops.boxes import iou

LAYOUT = AnchorLayout(((2, 4, (4,)), (3, 8, (8,)), (4, 16, (16,))), scale=8.0, ratios=(0.5, 1.0, 2.0), offset=0.5)


def boxes(count: int, smallest: float = 4, largest: float = 90) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    sides = np.exp(random.uniform(np.log(smallest), np.log(largest), (count, 2)))
    corners = random.uniform(0, 1, (count, 2)) * (np.array([160, 120]) - sides)
    return np.concatenate([corners, corners + sides], axis=1), np.tile([160, 120], (count, 1))


def test_best_anchor_is_the_best_of_all():
    found, canvas = boxes(60)
    best, levels = best_anchors(LAYOUT, found, canvas)
    rows = []
    for _, stride, served in LAYOUT.levels:
        cells = (-(-120 // stride), -(-160 // stride))
        grid = AnchorGrid(
            cell_anchors(LAYOUT.scale * served[0], LAYOUT.ratios), *cells, (stride, stride), LAYOUT.offset
        )
        rows.append(iou(torch.tensor(found, dtype=torch.float32), grid.all()).amax(dim=1))
    wanted = torch.stack(rows)
    np.testing.assert_allclose(best, wanted.amax(dim=0), atol=1e-5)
    assert (levels == 2 + wanted.argmax(dim=0).numpy()).mean() > 0.95


def test_smaller_anchors_are_suggested_for_small_boxes():
    found, canvas = boxes(200, smallest=6, largest=16)
    better, share = suggestion(LAYOUT, found, canvas)
    assert better.scale < LAYOUT.scale
    assert share == match_rate(better, found, canvas) > match_rate(LAYOUT, found, canvas) + 0.2
    lines = advice(LAYOUT, found, canvas, best_anchors(LAYOUT, found, canvas)[1])
    assert any(line.startswith(f"RPNConfig(anchor_scale={better.scale:g}") for line in lines)
    assert any("smaller than half of the smallest anchor (32 pixels on P2, stride 4)" in line for line in lines)
    assert any("no box is best matched on P3, P4" in line or "P4" in line for line in lines)


def test_ratios_of_the_boxes_are_suggested():
    random = np.random.default_rng(0)
    corners = random.uniform(0, 40, (100, 2))
    found = np.concatenate([corners, corners + np.array([12.0, 72.0])], axis=1)
    better, share = suggestion(LAYOUT, found, np.tile([160, 120], (100, 1)))
    assert 6.0 in better.ratios
    assert share > 0.9 > 0.1 > match_rate(LAYOUT, found, np.tile([160, 120], (100, 1)))


def test_no_boxes_no_advice():
    none, canvas = np.zeros((0, 4)), np.zeros((0, 2))
    assert match_rate(LAYOUT, none, canvas) == 1.0
    assert advice(LAYOUT, none, canvas, np.zeros(0, dtype=int)) == []


def test_the_layout_is_that_of_the_detector():
    """Made of the spec alone, it is what the built RPN has."""
    spec = zoo.preset("faster_rcnn_lite0_fpn")
    layout, rpn = anchor_layout(spec), zoo.build(spec, 1).rpn
    assert layout.levels == tuple((each.number, each.stride, each.serves) for each in rpn.levels)
    assert [stride for _, stride, _ in layout.levels] == [4, 8, 16, 32, 64]
    assert (layout.scale, layout.ratios, layout.offset) == (8.0, (0.5, 1.0, 2.0), 0.5)


def test_a_model_without_rpn_has_no_anchors():
    assert anchor_layout(dataclasses.replace(zoo.preset("faster_rcnn_lite0_fpn"), rpn=None)) is None
