"""Non-maximum suppression and top-k at fixed sizes.

Plain NMS returns as many boxes as survive, which breaks graphs and export. Here it returns a mask of the size
of its input: the caller sorts and masks, and every shape is known beforehand.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms


@torch.library.custom_op("fpnkit::nms_keep", mutates_args=())
def nms_keep(boxes_xyxy: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """Which boxes survive greedy NMS, group by group.

    Args:
        boxes_xyxy: (B, K, 4).
        scores: (B, K); give padding -inf and mask it in the result; its boxes may hold anything.
        groups: (B, K) int64: boxes of different groups (classes) never suppress one another.
        iou_threshold: a box goes when its IoU with a better one is above.
    Returns:
        (B, K) bool.
    """
    rows, columns = scores.shape
    keep = torch.zeros(rows * columns, dtype=torch.bool, device=scores.device)
    if columns:
        span = int(groups.max()) + 1 if groups.numel() else 1
        row = torch.arange(rows, device=scores.device)[:, None]
        flat = (groups + row * span).reshape(-1)
        boxes = boxes_xyxy.float().masked_fill((scores == float("-inf"))[..., None], 0.0).reshape(-1, 4)
        if len(boxes):
            boxes = boxes - boxes.min().clamp(max=0)  # batched_nms keeps groups apart from 0 on only
        kept = batched_nms(boxes, scores.reshape(-1).float(), flat, iou_threshold)
        keep[kept] = True
    return keep.reshape(rows, columns)


@nms_keep.register_fake
def _(boxes_xyxy: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    return scores.new_empty(scores.shape, dtype=torch.bool)


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k best of each row, padded when there are fewer.

    Args:
        scores: (B, A) float; A may be smaller than k, and dynamic.
        k: fixed number of results.
    Returns:
        scores (B, k) with -inf for padding, index (B, k) int64 safe to gather with, valid (B, k) bool.
    """
    count = scores.shape[1]
    padded = torch.nn.functional.pad(scores, (0, k), value=float("-inf"))
    best, index = padded.topk(k, dim=1)
    return best, index.clamp(max=count - 1), (index < count) & (best > float("-inf"))
