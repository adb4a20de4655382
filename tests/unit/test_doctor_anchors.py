"""Anchor coverage against every anchor, one by one."""

import numpy as np
import torch

from fpnkit.doctor.anchors import AnchorPlan, advice, best_anchors, covered, suggestion
from fpnkit.doctor.checkup import anchor_plan
from fpnkit.ops.anchors import AnchorGrid, cell_anchors
from fpnkit.ops.boxes import iou

PLAN = AnchorPlan(((2, 4, (4,)), (3, 8, (8,)), (4, 16, (16,))), scale=8.0, ratios=(0.5, 1.0, 2.0), offset=0.5)


def boxes(count: int, smallest: float = 4, largest: float = 90) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    sides = np.exp(random.uniform(np.log(smallest), np.log(largest), (count, 2)))
    corners = random.uniform(0, 1, (count, 2)) * (np.array([160, 120]) - sides)
    return np.concatenate([corners, corners + sides], axis=1), np.tile([160, 120], (count, 1))


def test_best_anchor_is_the_best_of_all():
    found, canvas = boxes(60)
    best, levels = best_anchors(PLAN, found, canvas)
    rows = []
    for _, stride, served in PLAN.levels:
        cells = (-(-120 // stride), -(-160 // stride))
        grid = AnchorGrid(cell_anchors(PLAN.scale * served[0], PLAN.ratios), *cells, (stride, stride), PLAN.offset)
        rows.append(iou(torch.tensor(found, dtype=torch.float32), grid.all()).amax(dim=1))
    wanted = torch.stack(rows)
    np.testing.assert_allclose(best, wanted.amax(dim=0), atol=1e-5)
    assert (levels == 2 + wanted.argmax(dim=0).numpy()).mean() > 0.95


def test_smaller_anchors_are_suggested_for_small_boxes():
    found, canvas = boxes(200, smallest=6, largest=16)
    better, share = suggestion(PLAN, found, canvas)
    assert better.scale < PLAN.scale
    assert share == covered(better, found, canvas) > covered(PLAN, found, canvas) + 0.2
    lines = advice(PLAN, found, canvas, best_anchors(PLAN, found, canvas)[1])
    assert any(line.startswith(f"RPNConfig(anchor_scale={better.scale:g}") for line in lines)
    assert any("smaller than half of the smallest anchor (32 pixels on P2, stride 4)" in line for line in lines)
    assert any("no box is best matched on P3, P4" in line or "P4" in line for line in lines)


def test_ratios_of_the_boxes_are_suggested():
    random = np.random.default_rng(0)
    corners = random.uniform(0, 40, (100, 2))
    found = np.concatenate([corners, corners + np.array([12.0, 72.0])], axis=1)
    better, share = suggestion(PLAN, found, np.tile([160, 120], (100, 1)))
    assert 6.0 in better.ratios
    assert share > 0.9 > 0.1 > covered(PLAN, found, np.tile([160, 120], (100, 1)))


def test_no_boxes_no_advice():
    none, canvas = np.zeros((0, 4)), np.zeros((0, 2))
    assert covered(PLAN, none, canvas) == 1.0
    assert advice(PLAN, none, canvas, np.zeros(0, dtype=int)) == []


def test_plan_is_that_of_the_model():
    plan = anchor_plan("faster_rcnn_lite0_fpn")
    assert [stride for _, stride, _ in plan.levels] == [4, 8, 16, 32, 64]
    assert (plan.scale, plan.ratios, plan.offset) == (8.0, (0.5, 1.0, 2.0), 0.5)
