"""Boxes in numpy, for what happens outside of networks; `ops` has the same for tensors."""

from __future__ import annotations

import numpy as np


def iou(a_xyxy: np.ndarray, b_xyxy: np.ndarray) -> np.ndarray:
    """Pairwise intersection over union: (A, 4), (B, 4) -> (A, B) in 0..1; 0 where both have no area."""
    low = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    high = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    union = area(a_xyxy)[:, None] + area(b_xyxy)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(union), where=union > 0)


def area(boxes_xyxy: np.ndarray) -> np.ndarray:
    """(..., 4) -> (...), 0 of boxes that are turned inside out."""
    return np.clip(boxes_xyxy[..., 2:] - boxes_xyxy[..., :2], 0, None).prod(axis=-1)


def nms(boxes_xyxy: np.ndarray, scores: np.ndarray, labels: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Greedy non-maximum suppression, class by class.

    Args:
        boxes_xyxy: (K, 4).
        scores, labels: (K,) each.
        iou_threshold: a box goes when its IoU with a better one of its label is above.
    Returns:
        Indices of what is left, best first; of equal scores the earlier one is better.
    """
    kept = []
    for label in np.unique(labels):
        left = np.flatnonzero(labels == label)
        left = left[np.argsort(-scores[left], kind="stable")]
        while len(left):
            kept.append(left[0])
            left = left[1:][iou(boxes_xyxy[left[:1]], boxes_xyxy[left[1:]])[0] <= iou_threshold]
    chosen = np.sort(np.array(kept, dtype=np.int64))
    return chosen[np.argsort(-scores[chosen], kind="stable")]
