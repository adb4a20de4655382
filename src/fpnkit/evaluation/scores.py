"""COCO average precision of detections, average recall of proposals, counted from results that are there."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.annotated import AnnotatedImages, ground_truth, require_objects

LEAST_MOST = 100
"""Detections an image that COCO's figures count; all of a detector that gives more."""

AREAS = ("small", "medium", "large")
"""COCO's ranges of area: below 32 x 32, to 96 x 96, above."""

RESULT_FIELDS = ("image_id", "category_id", "bbox", "score")
"""Of a COCO result. Whatever else a detector gives stands beside them and is not looked at here."""


@dataclass(frozen=True)
class Evaluation:
    """Figures and what they were computed from.

    Attributes:
        metrics: COCO's twelve figures and those of `score_proposals`, in 0..1; -1 where nothing of that size exists.
        detections: COCO results: image_id, category_id, bbox [x, y, width, height], score; and what else the detector
            gives of a detection, by the singular of its name.
        precision: (IoU thresholds 0.50..0.95, 101 recall points, classes), -1 where undefined.
    """

    metrics: dict[str, float]
    detections: list[dict[str, Any]] = field(repr=False)
    precision: np.ndarray = field(repr=False)


def score(
    detections: list[dict[str, Any]],
    proposals: list[dict[str, Any]] | None,
    dataset: AnnotatedImages,
    *,
    most: int = LEAST_MOST,
) -> Evaluation:
    """COCO figures of results that are already there.

    Args:
        detections: COCO results; may be empty.
        proposals: likewise, whatever their category; None where there are none.
        dataset: the ground truth.
        most: detections an image that count, where that is above COCO's 100.
    Raises:
        DataError: the data set holds no object to find, or its file is no longer there.
    """
    require_objects(dataset)
    counts = (1, 10, max(LEAST_MOST, most))
    evaluated = _evaluated(detections, ground_truth(dataset), per_class=True, most=counts)
    metrics = _figures(evaluated, counts)
    if proposals is not None:
        metrics |= score_proposals(proposals, dataset)
    by_label = np.searchsorted(np.sort(dataset.category_ids), dataset.category_ids)
    return Evaluation(metrics, detections, evaluated.eval["precision"][:, :, by_label, 0, -1])


def score_proposals(proposals: list[dict[str, Any]], dataset: AnnotatedImages) -> dict[str, float]:
    """Average recall of proposals, whatever the class: `proposals/AR_100`, `proposals/AR_1000`, and `AR_1000` of
    small, medium and large objects.

    Source: arXiv:1612.03144, section 5.1: what Table 1 reports.
    """
    recall = _evaluated(proposals, ground_truth(dataset), per_class=False, most=(100, 1000, 1000)).eval["recall"]
    metrics = {f"proposals/AR_{most}": _mean(recall[:, :, 0, place]) for place, most in enumerate((100, 1000))}
    for area, size in enumerate(AREAS, start=1):
        metrics[f"proposals/AR_1000_{size}"] = _mean(recall[:, :, area, 1])
    return metrics


def _figures(evaluated: Any, counts: tuple[int, ...]) -> dict[str, float]:
    """COCO's twelve, by the names that its table has: of all detections, at single IoUs, by area, by their number."""
    precision, recall = evaluated.eval["precision"], evaluated.eval["recall"]
    figures = {"AP": precision[..., 0, -1], "AP50": precision[0, ..., 0, -1], "AP75": precision[5, ..., 0, -1]}
    figures |= {f"AP_{size}": precision[..., area, -1] for area, size in enumerate(AREAS, start=1)}
    figures |= {f"AR_{count}": recall[..., 0, place] for place, count in enumerate(counts)}
    figures |= {f"AR_{size}": recall[..., area, -1] for area, size in enumerate(AREAS, start=1)}
    return {name: _mean(values) for name, values in figures.items()}


def _evaluated(
    results: list[dict[str, Any]], truth: dict[str, Any], *, per_class: bool, most: tuple[int, int, int]
) -> Any:
    """COCO's evaluation of results against the usable annotations, by a library that gives pycocotools' figures."""
    from faster_coco_eval import COCOeval_faster

    with contextlib.redirect_stdout(io.StringIO()):
        annotated = _indexed(truth)
        known = [{name: each[name] for name in RESULT_FIELDS} for each in results]
        found = annotated.loadRes(known) if known else _indexed({**truth, "annotations": []})
        evaluated = COCOeval_faster(annotated, found, "bbox")
        evaluated.params.useCats = int(per_class)
        evaluated.params.maxDets = list(most)
        evaluated.evaluate()
        evaluated.accumulate()
    return evaluated


def _indexed(truth: dict[str, Any]) -> Any:
    from faster_coco_eval import COCO

    coco = COCO()
    annotations = [dict(entry) for entry in truth["annotations"]]  # the library writes into what it gets
    coco.dataset = {**truth, "info": {}, "annotations": annotations}
    coco.createIndex()
    return coco


def _mean(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0
