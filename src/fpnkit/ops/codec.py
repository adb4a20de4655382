"""Boxes to deltas and back (Faster R-CNN, arXiv:1506.01497, eq. 2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import ShapeError

Weights = tuple[float, float, float, float]

MAX_LOG_SIZE = math.log(1000 / 16)
"""Cap on predicted log sizes, so that exp never overflows; the value of every public implementation."""


def _centres_and_sizes(boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    sizes = boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]
    return boxes_xyxy[..., :2] + 0.5 * sizes, sizes


def _require_pairs(values: Tensor, anchors_xyxy: Tensor, name: str) -> None:
    if values.shape[-2] != anchors_xyxy.shape[-2]:
        raise ShapeError(
            f"expected one row of {name} for each anchor, "
            f"got {values.shape[-2]} rows for {anchors_xyxy.shape[-2]} anchors"
        )


def encode_boxes(boxes_xyxy: Tensor, anchors_xyxy: Tensor, *, weights: Weights) -> Tensor:
    """Turn boxes into the deltas that a head must predict.

    Args:
        boxes_xyxy: (..., A, 4) absolute pixels.
        anchors_xyxy: (..., A, 4) absolute pixels.
        weights: factors of dx, dy, log dw, log dh: RPN (1, 1, 1, 1), RoI head (10, 10, 5, 5).
    Returns:
        (..., A, 4): dx, dy, log dw, log dh, times `weights`. Finite for boxes of zero size too.
    Raises:
        ShapeError: the two lengths differ.
    Source: arXiv:1506.01497, eq. 2. Deviation: sizes are taken as at least 1e-3 pixel.
    """
    _require_pairs(boxes_xyxy, anchors_xyxy, "boxes")
    box_centres, box_sizes = _centres_and_sizes(boxes_xyxy)
    centres, sizes = _centres_and_sizes(anchors_xyxy)
    sizes = sizes.clamp(min=1e-3)
    shifts = (box_centres - centres) / sizes
    scales = torch.log(box_sizes.clamp(min=1e-3) / sizes)
    return torch.cat([shifts, scales], dim=-1) * shifts.new_tensor(weights)


def decode_deltas(deltas: Tensor, anchors_xyxy: Tensor, *, weights: Weights) -> Tensor:
    """Turn predicted deltas into boxes.

    Args:
        deltas: (..., A, 4): dx, dy, log dw, log dh, times `weights`.
        anchors_xyxy: (..., A, 4) absolute pixels.
        weights: RPN (1, 1, 1, 1), RoI head (10, 10, 5, 5).
    Returns:
        (..., A, 4) xyxy pixels, not clipped; A may be 0.
    Raises:
        ShapeError: the two lengths differ.
    Source: arXiv:1506.01497, eq. 2. Deviation: log sizes clamped at log(1000/16).
    """
    _require_pairs(deltas, anchors_xyxy, "deltas")
    centres, sizes = _centres_and_sizes(anchors_xyxy)
    shifts, log_sizes = (deltas / deltas.new_tensor(weights)).split(2, dim=-1)
    moved = shifts * sizes + centres
    half = 0.5 * torch.exp(log_sizes.clamp(max=MAX_LOG_SIZE)) * sizes
    return torch.cat([moved - half, moved + half], dim=-1)
