"""Which boxes the anchors of a model can match, and what anchors would match more."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

MATCHED = 0.5
"""IoU with an anchor that a box needs to be learnt well."""

SCALES = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Anchor scales that are tried: sides of square anchors in strides."""

WORTH = 0.01
"""Share of boxes that another choice must match in addition to be suggested."""


@dataclass(frozen=True)
class AnchorPlan:
    """What anchors a model has.

    Attributes:
        levels: (number, stride, strides that it serves) of each level.
        scale: sides of square anchors, in the strides served.
        ratios: height over width.
        offset: where in its cell an anchor is centred, in strides.
    """

    levels: tuple[tuple[int, int, tuple[int, ...]], ...]
    scale: float
    ratios: tuple[float, ...]
    offset: float


def best_anchors(plan: AnchorPlan, boxes_xyxy: np.ndarray, canvas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The anchor with the largest IoU of each box.

    Args:
        plan: the anchors.
        boxes_xyxy: (M, 4) pixels of the network's input.
        canvas: (M, 2) width and height of that input.
    Returns:
        IoU (M,) and the number of the level (M,). Of each shape the anchor whose centre is nearest is the best one.
    """
    best, level = np.zeros(len(boxes_xyxy)), np.zeros(len(boxes_xyxy), dtype=int)
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    centres = (boxes_xyxy[:, 2:] + boxes_xyxy[:, :2]) / 2
    for number, stride, served in plan.levels:
        cells = np.ceil(canvas / stride)
        nearest = np.clip(np.round(centres / stride - plan.offset), 0, cells - 1)
        shift = np.abs((nearest + plan.offset) * stride - centres)
        for side in served:
            for ratio in plan.ratios:
                anchor = plan.scale * side * np.array([ratio**-0.5, ratio**0.5])
                shared = np.clip(np.minimum(sides, (sides + anchor) / 2 - shift), 0, anchor).prod(axis=1)
                iou = shared / (sides.prod(axis=1) + anchor.prod() - shared)
                level[iou > best] = number
                best = np.maximum(best, iou)
    return best, level


def covered(plan: AnchorPlan, boxes_xyxy: np.ndarray, canvas: np.ndarray) -> float:
    """Share of the boxes that an anchor matches."""
    return float((best_anchors(plan, boxes_xyxy, canvas)[0] >= MATCHED).mean()) if len(boxes_xyxy) else 1.0


def suggestion(plan: AnchorPlan, boxes_xyxy: np.ndarray, canvas: np.ndarray) -> tuple[AnchorPlan, float]:
    """The plan of the same levels that covers most boxes, and the share; the given one unless another is worth it.

    Tried are `SCALES`, each with the given ratios and with those of the boxes: the middles of their lower, middle and
    upper thirds.
    """
    best, share = plan, covered(plan, boxes_xyxy, canvas)
    for ratios in (plan.ratios, _usual_ratios(boxes_xyxy)):
        for scale in SCALES:
            other = replace(plan, scale=scale, ratios=ratios)
            found = covered(other, boxes_xyxy, canvas)
            if found > share + WORTH:
                best, share = other, found
    return best, share


def _usual_ratios(boxes_xyxy: np.ndarray) -> tuple[float, ...]:
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    found = np.quantile(sides[:, 1] / sides[:, 0], (1 / 6, 1 / 2, 5 / 6)) if len(sides) else np.ones(1)
    return tuple(dict.fromkeys(float(f"{each:.2g}") for each in found))


def advice(plan: AnchorPlan, boxes_xyxy: np.ndarray, canvas: np.ndarray, levels: np.ndarray) -> list[str]:
    """What to change, in words; nothing when all is well.

    Args:
        plan, boxes_xyxy, canvas: as for `best_anchors`.
        levels: the level of the best anchor of each box.
    """
    lines = []
    share = covered(plan, boxes_xyxy, canvas)
    better, more = suggestion(plan, boxes_xyxy, canvas)
    if better != plan:
        ratios = ", ".join(f"{ratio:g}" for ratio in better.ratios)
        lines.append(
            f"RPNConfig(anchor_scale={better.scale:g}, ratios=({ratios})) matches {more:.1%} of the boxes at IoU "
            f"{MATCHED}, the model's anchor_scale={plan.scale:g} matches {share:.1%}"
        )
    sides = np.sqrt((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1))
    number, stride, served = plan.levels[0]
    tiny = float((sides < plan.scale * min(served) / 2).mean()) if len(sides) else 0.0
    if tiny > 0.1:
        lines.append(
            f"{tiny:.0%} of the boxes are smaller than half of the smallest anchor ({plan.scale * min(served):g} "
            f"pixels on P{number}, stride {stride}): larger images or a smaller anchor_scale would reach them"
        )
    empty = [f"P{number}" for number, _, _ in plan.levels if not np.any(levels == number)]
    if empty and len(sides):
        lines.append(f"no box is best matched on {', '.join(empty)}: the model works without")
    return lines
