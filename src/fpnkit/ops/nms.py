"""Non-maximum suppression and top-k at fixed sizes.

Plain NMS returns as many boxes as survive, which breaks graphs and export. Here it returns a mask of the size
of its input: the caller sorts and masks, and every shape is known beforehand.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from .boxes import iou
from .operators import register


@register("fpnkit::nms_keep")
def nms_keep(boxes_xyxy: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Which boxes survive greedy NMS, row by row.

    Args:
        boxes_xyxy: (B, K, 4); a row is what suppresses one another: one class of an image, or one level.
        scores: (B, K); -inf for padding, whose boxes may hold anything.
        iou_threshold: a box goes when its IoU with a better one is above.
    Returns:
        (B, K) bool; padding does not survive.
    """
    if scores.is_cuda:
        return suppressed_in_rows(boxes_xyxy, scores, iou_threshold)
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


PAIRS = 2**26
"""IoUs that are computed at once, 256 MB of them."""


def suppressed_in_rows(boxes_xyxy: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """`nms_keep` for GPUs: all rows at once, where torchvision takes them one after the other.

    A box stays when no better one that stays covers it. Applied to a guess of who stays, that rule makes a better
    guess, and once nothing changes it is greedy NMS: the best box is right from the start, the k-th after k rounds.
    Chains of boxes that cover one another are short, so a few rounds do.
    """
    scores = scores.float().nan_to_num(float("-inf"), float("inf"), float("-inf"))
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    real = scores > float("-inf")
    most = int(real.sum(dim=1).max()) if real.numel() else 0
    keep = torch.zeros_like(real)
    if most:
        best = boxes_xyxy.float().gather(1, order[:, :most, None].expand(-1, -1, 4))
        rows = max(1, PAIRS // most**2)
        pieces = zip(best.split(rows), real[:, :most].split(rows), strict=True)
        keep[:, :most] = torch.cat([_stay(boxes, mask, iou_threshold) for boxes, mask in pieces])
    return torch.zeros_like(keep).scatter_(1, order, keep)


def _stay(boxes_xyxy: Tensor, real: Tensor, iou_threshold: float) -> Tensor:
    """Which boxes of rows (B, K, 4), best first, survive."""
    boxes_xyxy = boxes_xyxy.masked_fill(~real[..., None], 0.0)
    covers = (iou(boxes_xyxy, boxes_xyxy) > iou_threshold).triu_(diagonal=1)
    keep = real
    while True:
        covered = (covers & keep[..., None]).any(dim=1)
        better = real & ~covered
        if torch.equal(better, keep):
            return keep
        keep = better


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
