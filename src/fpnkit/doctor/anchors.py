"""Which boxes the anchors of a model can match, and what anchors would match more."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..backbones import make_backbone
from ..pyramids import make_pyramid
from ..zoo.spec import ModelSpec

MIN_IOU = 0.5
"""IoU with an anchor from which on a box counts as matched."""

SCALES = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Anchor scales that are tried: sides of square anchors in strides."""

MIN_GAIN = 0.01
"""Share of the boxes that other anchors must match in addition to be suggested."""


@dataclass(frozen=True)
class AnchorLayout:
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


def anchor_layout(spec: ModelSpec) -> AnchorLayout | None:
    """The anchors of a model; None where it has no RPN.

    Raises:
        ConfigError: see `zoo.build`.
    """
    if spec.rpn is None:
        return None
    pyramid = make_pyramid(spec.pyramid, make_backbone(spec.backbone).levels)
    levels = tuple((level.number, level.stride, tuple(level.serves)) for level in pyramid.levels)
    return AnchorLayout(levels, spec.rpn.anchor_scale, tuple(spec.rpn.ratios), spec.rpn.anchor_offset)


def best_anchors(layout: AnchorLayout, boxes_xyxy: np.ndarray, canvas_wh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The anchor with the largest IoU of each box.

    Args:
        layout: the anchors.
        boxes_xyxy: (M, 4) pixels of the network's input.
        canvas_wh: (M, 2) width and height of that input.
    Returns:
        IoU (M,) and the number of the level (M,). Of each shape the anchor whose centre is nearest is the best one.
    """
    best, level = np.zeros(len(boxes_xyxy)), np.zeros(len(boxes_xyxy), dtype=int)
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    centres = (boxes_xyxy[:, 2:] + boxes_xyxy[:, :2]) / 2
    for number, stride, served in layout.levels:
        cells = np.ceil(canvas_wh / stride)
        nearest = np.clip(np.round(centres / stride - layout.offset), 0, cells - 1)
        shift = np.abs((nearest + layout.offset) * stride - centres)
        for side in served:
            for ratio in layout.ratios:
                anchor = layout.scale * side * np.array([ratio**-0.5, ratio**0.5])
                shared = np.clip(np.minimum(sides, (sides + anchor) / 2 - shift), 0, anchor).prod(axis=1)
                iou = shared / (sides.prod(axis=1) + anchor.prod() - shared)
                level[iou > best] = number
                best = np.maximum(best, iou)
    return best, level


def match_rate(layout: AnchorLayout, boxes_xyxy: np.ndarray, canvas_wh: np.ndarray) -> float:
    """Share of the boxes that an anchor matches; 1 without boxes."""
    if not len(boxes_xyxy):
        return 1.0
    return float((best_anchors(layout, boxes_xyxy, canvas_wh)[0] >= MIN_IOU).mean())


def suggestion(layout: AnchorLayout, boxes_xyxy: np.ndarray, canvas_wh: np.ndarray) -> tuple[AnchorLayout, float]:
    """The anchors on the same levels that match most boxes, and the share of them.

    Tried are `SCALES`, each with the given ratios and with those of the boxes: the middles of their lower, middle and
    upper thirds. The given anchors stay unless others match `MIN_GAIN` more.
    """
    best, share = layout, match_rate(layout, boxes_xyxy, canvas_wh)
    for ratios in (layout.ratios, _usual_ratios(boxes_xyxy)):
        for scale in SCALES:
            other = replace(layout, scale=scale, ratios=ratios)
            found = match_rate(other, boxes_xyxy, canvas_wh)
            if found > share + MIN_GAIN:
                best, share = other, found
    return best, share


def _usual_ratios(boxes_xyxy: np.ndarray) -> tuple[float, ...]:
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    found = np.quantile(sides[:, 1] / sides[:, 0], (1 / 6, 1 / 2, 5 / 6)) if len(sides) else np.ones(1)
    return tuple(dict.fromkeys(float(f"{each:.2g}") for each in found))


def advice(layout: AnchorLayout, boxes_xyxy: np.ndarray, canvas_wh: np.ndarray, levels: np.ndarray) -> list[str]:
    """What to change, in sentences; empty when the anchors fit.

    Args:
        layout, boxes_xyxy, canvas_wh: as for `best_anchors`.
        levels: the level of the best anchor of each box.
    """
    lines = []
    share = match_rate(layout, boxes_xyxy, canvas_wh)
    better, more = suggestion(layout, boxes_xyxy, canvas_wh)
    if better != layout:
        ratios = ", ".join(f"{ratio:g}" for ratio in better.ratios)
        lines.append(
            f"RPNConfig(anchor_scale={better.scale:g}, ratios=({ratios})) matches {more:.1%} of the boxes at IoU "
            f"{MIN_IOU}, the model's anchor_scale={layout.scale:g} matches {share:.1%}"
        )
    sides = np.sqrt((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1))
    number, stride, served = layout.levels[0]
    tiny = float((sides < layout.scale * min(served) / 2).mean()) if len(sides) else 0.0
    if tiny > 0.1:
        lines.append(
            f"{tiny:.0%} of the boxes are smaller than half of the smallest anchor ({layout.scale * min(served):g} "
            f"pixels on P{number}, stride {stride}): larger images or a smaller anchor_scale would reach them"
        )
    empty = [f"P{number}" for number, _, _ in layout.levels if not np.any(levels == number)]
    if empty and len(sides):
        lines.append(f"no box is best matched on {', '.join(empty)}: the model works without")
    return lines
