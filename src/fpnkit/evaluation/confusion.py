"""The confusion matrix: annotated objects against the detections that cover them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.annotated import AnnotatedImages
from ..inference.boxes import iou

LEAST_SCORE, LEAST_IOU = 0.5, 0.5


def confusion(detections: Sequence[dict[str, Any]], dataset: AnnotatedImages) -> np.ndarray:
    """Count pairs of object and detection, whatever their classes; the best score chooses first.

    Args:
        detections: COCO results; weaker ones than 0.5 are left out.
        dataset: the ground truth; crowds are left out, with what is found on them.
    Returns:
        (C + 1, C + 1): rows are the classes of objects, columns those of detections; the last row is of detections
        that cover no object at IoU 0.5, the last column of objects that were missed.
    """
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for each in sorted(detections, key=lambda each: -each["score"]):
        if each["score"] >= LEAST_SCORE:
            by_image[each["image_id"]].append(each)
    labels = {number: label for label, number in enumerate(dataset.category_ids)}
    classes = len(dataset.classes)
    counts = np.zeros((classes + 1, classes + 1), dtype=int)
    for record in dataset.records:
        found, free = by_image[record.image_id], set(range(len(record.labels)))
        overlaps = iou(_corners(found), np.array(record.boxes_xyxy, dtype=np.float32).reshape(-1, 4))
        for row, each in zip(overlaps.tolist(), found, strict=True):
            near = [(row[index], index) for index in free if row[index] >= LEAST_IOU]
            column = labels[each["category_id"]]
            if not near:
                counts[classes, column] += 1
            elif not record.crowd[max(near)[1]]:
                counts[record.labels[max(near)[1]], column] += 1
                free.remove(max(near)[1])
        for index in free:
            if not record.crowd[index]:
                counts[record.labels[index], classes] += 1
    return counts


def _corners(found: Sequence[dict[str, Any]]) -> np.ndarray:
    boxes = np.array([each["bbox"] for each in found], dtype=np.float32).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
