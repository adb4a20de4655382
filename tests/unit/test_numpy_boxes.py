"""Boxes outside of networks against torchvision and against `ops`, and what several scales are merged to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms, box_iou

from fpnkit.data.pixels import PreprocessConfig
from fpnkit.errors import ConfigError
from fpnkit.inference.boxes import area, iou, nms
from fpnkit.inference.passes import checked, merge, scaled
from fpnkit.ops import boxes as ops
from fpnkit.outputs import Postprocess


def some_boxes(count: int, seed: int = 0, *, whole: bool = False) -> np.ndarray:
    """(count, 4) float32, some of them without area."""
    dice = np.random.default_rng(seed)
    corners, sides = (
        dice.uniform(-20, 60, (count, 2)),
        dice.uniform(0, 50, (count, 2)) * (dice.random((count, 1)) > 0.1),
    )
    made = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    return made.round() if whole else made


@pytest.mark.parametrize("seed", range(5))
def test_iou_is_torchvisions_and_that_of_ops(seed):
    a, b = some_boxes(30, seed), some_boxes(40, seed + 100)
    found, tensors = iou(a, b), (torch.from_numpy(a), torch.from_numpy(b))
    assert found.shape == (30, 40)
    np.testing.assert_allclose(found, ops.iou(*tensors).numpy(), atol=1e-6)
    np.testing.assert_allclose(found, box_iou(*tensors).nan_to_num(0.0).numpy(), atol=1e-6)
    assert found.max() > 0.3


def test_iou_of_no_boxes_and_of_boxes_without_area():
    none = np.zeros((0, 4), dtype=np.float32)
    assert iou(none, some_boxes(3)).shape == (0, 3)
    assert iou(some_boxes(3), none).shape == (3, 0)
    points = np.array([[3.0, 3, 3, 3], [3, 3, 3, 8], [9, 9, 2, 2]], dtype=np.float32)
    assert not iou(points, points).any()
    assert area(points).tolist() == [0, 0, 0]


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_nms_keeps_what_torchvision_keeps(seed, threshold):
    dice = np.random.default_rng(seed)
    boxes_xyxy, scores, labels = (
        some_boxes(80, seed),
        dice.permutation(80).astype(np.float32),
        dice.integers(3, size=80),
    )
    kept = nms(boxes_xyxy, scores, labels, threshold)
    shifted = torch.from_numpy(boxes_xyxy - boxes_xyxy.min())  # torchvision keeps labels apart from 0 on only
    wanted = batched_nms(shifted, torch.from_numpy(scores), torch.from_numpy(labels), threshold)
    assert kept.tolist() == wanted.tolist()
    assert threshold > 0.5 or 0 < len(kept) < 80


def test_of_equal_scores_the_earlier_box_stays_and_results_are_best_first():
    box, near, far = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [50.0, 50.0, 60.0, 60.0]
    boxes_xyxy = np.array([far, near, box, box], dtype=np.float32)
    scores = np.array([0.5, 0.7, 0.7, 0.7], dtype=np.float32)
    labels = np.array([1, 0, 0, 1])
    assert nms(boxes_xyxy, scores, labels, 0.5).tolist() == [1, 3, 0]
    assert nms(boxes_xyxy[::-1], scores[::-1], labels[::-1], 0.5).tolist() == [0, 1, 3]
    assert nms(boxes_xyxy, scores, np.zeros(4, dtype=int), 0.9).tolist() == [1, 2, 0]  # 0.9 exactly is not above
    assert nms(boxes_xyxy[:0], scores[:0], labels[:0], 0.5).tolist() == []


@pytest.mark.parametrize("seed", range(5))
def test_nms_of_ties_is_a_slow_greedy_reference(seed):
    dice = np.random.default_rng(seed)
    boxes_xyxy = some_boxes(40, seed, whole=True)
    scores, labels = (dice.integers(5, size=40) / 4).astype(np.float32), dice.integers(2, size=40)
    kept: list[int] = []
    for index in sorted(range(40), key=lambda each: (-scores[each], each)):
        better = [each for each in kept if labels[each] == labels[index]]
        if all(iou(boxes_xyxy[[index]], boxes_xyxy[[each]])[0, 0] <= 0.4 for each in better):
            kept.append(index)
    assert nms(boxes_xyxy, scores, labels, 0.4).tolist() == kept


def found(*rows: tuple[float, float, int, int]) -> dict[str, np.ndarray]:
    """Squares of 10 pixels at x, with their score, label and level."""
    x, scores, labels, levels = (np.array(each) for each in zip(*rows, strict=True)) if rows else [np.zeros(0)] * 4
    corners = np.stack([x, 0 * x, x + 10, 0 * x + 10], axis=1).astype(np.float32)
    named = {"boxes_xyxy": corners, "scores": scores.astype(np.float32), "labels": labels.astype(int)}
    return {**named, "levels": levels.astype(int)}


def test_scales_are_merged_by_nms_within_classes_best_first_with_all_that_belongs_to_a_detection():
    one = found((0, 0.9, 1, 3), (40, 0.4, 0, 2))
    other = found((1, 0.8, 1, 4), (1, 0.7, 0, 5), (80, 0.6, 2, 2))
    made = merge([one, other], Postprocess(nms_iou=0.5))
    assert made["scores"].tolist() == pytest.approx([0.9, 0.7, 0.6, 0.4])
    assert made["labels"].tolist() == [1, 0, 2, 0]
    assert made["levels"].tolist() == [3, 5, 2, 2]
    assert made["boxes_xyxy"][:, 0].tolist() == [0, 1, 80, 40]
    assert merge([one, other], Postprocess(nms_iou=1.0))["scores"].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.4])
    assert merge([one, other], Postprocess(detections=2))["labels"].tolist() == [1, 0]
    nothing = merge([found(), found()], Postprocess())
    assert {name: values.shape for name, values in nothing.items()} == {
        "boxes_xyxy": (0, 4),
        "scores": (0,),
        "labels": (0,),
        "levels": (0,),
    }


def test_scales_are_sorted_each_once_and_must_be_in_range():
    assert checked((2, 0.5, 1, 0.5)) == (0.5, 1.0, 2.0)
    for bad in ((), (0,), (-1, 1), (11,), (float("nan"),)):
        with pytest.raises(ConfigError, match="scales are one or more factors"):
            checked(bad)
    config = PreprocessConfig(short_side=100, long_side=133, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert (scaled(config, 0.5).short_side, scaled(config, 0.5).long_side) == (50, 66)
    assert scaled(config, 0.001).short_side == 1
