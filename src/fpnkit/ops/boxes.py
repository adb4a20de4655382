"""Box arithmetic on continuous, absolute xyxy pixels (no legacy +1)."""

from __future__ import annotations

import torch
from torch import Tensor


def area(boxes_xyxy: Tensor) -> Tensor:
    """Areas in square pixels: (..., 4) -> (...)."""
    return (boxes_xyxy[..., 2] - boxes_xyxy[..., 0]) * (boxes_xyxy[..., 3] - boxes_xyxy[..., 1])


def intersection(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Pairwise overlap in square pixels: (..., A, 4), (..., B, 4) -> (..., A, B)."""
    left_top = torch.maximum(a_xyxy[..., :, None, :2], b_xyxy[..., None, :, :2])
    right_bottom = torch.minimum(a_xyxy[..., :, None, 2:], b_xyxy[..., None, :, 2:])
    sides = (right_bottom - left_top).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Pairwise intersection over union: (..., A, 4), (..., B, 4) -> (..., A, B) in 0..1.

    Two boxes of zero area have IoU 0, not NaN.
    """
    overlap = intersection(a_xyxy, b_xyxy)
    union = area(a_xyxy)[..., :, None] + area(b_xyxy)[..., None, :] - overlap
    return overlap / union.clamp(min=torch.finfo(overlap.dtype).tiny)


def coverage(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Share of each a that lies inside each b: (..., A, 4), (..., B, 4) -> (..., A, B) in 0..1."""
    overlap = intersection(a_xyxy, b_xyxy)
    return overlap / area(a_xyxy)[..., :, None].clamp(min=torch.finfo(overlap.dtype).tiny)


def clip(boxes_xyxy: Tensor, sizes_hw: Tensor) -> Tensor:
    """Clip the boxes of each image to it.

    Args:
        boxes_xyxy: (N, K, 4).
        sizes_hw: (N, 2) height and width.
    Returns:
        (N, K, 4).
    """
    height, width = sizes_hw[:, 0, None], sizes_hw[:, 1, None]
    zero = torch.zeros_like(height)
    low = torch.stack([zero, zero, zero, zero], dim=-1)
    high = torch.stack([width, height, width, height], dim=-1)
    return torch.minimum(torch.maximum(boxes_xyxy, low), high)


def min_side(boxes_xyxy: Tensor) -> Tensor:
    """The shorter side in pixels: (..., 4) -> (...)."""
    return (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).amin(dim=-1)
