"""Non-maximum suppression and top-k at fixed sizes.

Plain NMS returns as many boxes as survive, which breaks graphs and export. Here it returns a mask of the size
of its input: the caller sorts and masks, and every shape is known beforehand.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms


@torch.library.custom_op("fpnkit::nms_keep", mutates_args=(), tags=[torch.Tag.cudagraph_unsafe])
def nms_keep(boxes_xyxy: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Which boxes survive greedy NMS, row by row.

    Args:
        boxes_xyxy: (B, K, 4); a row is what suppresses one another: one class of an image, or one level.
        scores: (B, K); -inf for padding, whose boxes may hold anything.
        iou_threshold: a box goes when its IoU with a better one is above.
    Returns:
        (B, K) bool; padding does not survive.
    """
    real = scores > float("-inf")
    boxes = boxes_xyxy[real].float()
    if len(boxes):
        boxes = boxes - boxes.min().clamp(max=0)  # batched_nms keeps groups apart from 0 on only
    place = real.flatten().nonzero()[:, 0]
    kept = batched_nms(boxes, scores[real].float(), place // max(1, scores.shape[1]), iou_threshold)
    keep = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    keep[place[kept]] = True
    return keep.reshape(scores.shape)


@nms_keep.register_fake
def _(boxes_xyxy: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
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
