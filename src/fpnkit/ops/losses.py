"""The two losses of Faster R-CNN, over fixed-size samples with a mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def smooth_l1(predicted: Tensor, wanted: Tensor, *, beta: float) -> Tensor:
    """Huber-like loss, summed over the last dimension: (..., 4), (..., 4) -> (...).

    Args:
        beta: below this difference quadratic, above linear; 0 is plain L1.
    Source: Fast R-CNN, arXiv:1504.08083, eq. 3.
    """
    difference = (predicted - wanted).abs()
    if beta == 0:
        return difference.sum(dim=-1)
    loss = torch.where(difference < beta, 0.5 * difference**2 / beta, difference - 0.5 * beta)
    return loss.sum(dim=-1)


def masked_mean(values: Tensor, mask: Tensor, count: Tensor) -> Tensor:
    """Mean over images of each one's mean: (N, S), (N, S) bool, (N,) -> ().

    An image weighs the same whatever it is batched with, so a batch may be computed in parts or by several processes.

    Args:
        values: of S samples an image.
        mask: those that are summed.
        count: what the sum is divided by, at least 1: no samples give 0, never NaN.
    """
    sums = torch.where(mask, values, torch.zeros_like(values)).sum(dim=1)
    return (sums / count.clamp(min=1)).mean()


def objectness_loss(logits: Tensor, positive: Tensor) -> Tensor:
    """Binary cross entropy of each sample: (...), (...) bool -> (...)."""
    return F.binary_cross_entropy_with_logits(logits, positive.to(logits.dtype), reduction="none")


def class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of each RoI: (..., classes + 1), (...) int64 -> (...)."""
    flat = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
    return flat.reshape(labels.shape)
