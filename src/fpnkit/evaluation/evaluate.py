"""COCO average precision of detections, average recall of proposals."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..data.annotated import AnnotatedImages, Record, ground_truth, require_objects
from ..data.images import read_image
from ..data.loader import DetectionDataset, make_loader
from ..data.preprocess import Preprocess, PreprocessConfig, restore
from ..data.tensors import to_tensor
from ..detectors import FasterRCNN
from ..device import mixed_precision
from ..inference.engines import Engine
from ..structures import Detections, ImageBatch, Proposals

METRICS = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR_1",
    "AR_10",
    "AR_100",
    "AR_small",
    "AR_medium",
    "AR_large",
)
"""Names of COCO's twelve figures, in its order."""

PROPOSALS = 1000

Find = Callable[[ImageBatch], Sequence[tuple[Proposals | None, Detections | None]]]


@dataclass(frozen=True)
class Evaluation:
    """Figures and what they were computed from.

    Attributes:
        metrics: the twelve of `METRICS` and those of `score_proposals`, in 0..1; -1 where nothing of that size exists.
        detections: COCO results: image_id, category_id, bbox [x, y, width, height], score.
        precision: (IoU thresholds 0.50..0.95, 101 recall points, classes), -1 where undefined.
    """

    metrics: dict[str, float]
    detections: list[dict[str, Any]] = field(repr=False)
    precision: np.ndarray = field(repr=False)


def evaluate(
    detector: FasterRCNN,
    dataset: AnnotatedImages,
    preprocess: Preprocess,
    *,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    batch_size: int = 1,
    workers: int = 0,
    on_batch: Callable[[int], None] = lambda images: None,
) -> Evaluation:
    """Run a detector over a data set and score it as COCO does.

    Args:
        detector: in any mode; it is put back into it.
        dataset: ground truth; its classes are the detector's, by label.
        preprocess: the detector's own.
        device: where to run.
        precision: `float32` or `bf16`.
        batch_size, workers: of loading; the figures change only by padding, in the third digit.
        on_batch: told the number of images of each finished batch.
    Raises:
        DataError: an image cannot be read, or there is no object to find.
    """
    require_objects(dataset)
    found = detect_all(
        detector,
        dataset,
        preprocess,
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        on_batch=on_batch,
    )
    return score(*found, dataset)


def detect_all(
    detector: FasterRCNN,
    dataset: AnnotatedImages,
    preprocess: Preprocess,
    *,
    device: torch.device | str,
    **options: Any,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """`collect` of a detector, which may be in any mode and is put back into it.

    Args:
        detector: see `evaluate`.
        dataset, preprocess, device: as for `collect`; the data set may be a part of one, without objects.
        options: others of `collect`.
    """
    was_training = detector.training
    detector.to(device).eval()
    try:
        return collect(
            lambda batch: detector.detect_and_propose(batch, proposals=PROPOSALS),
            dataset,
            preprocess,
            device=device,
            **options,
        )
    finally:
        detector.train(was_training)


def evaluate_engine(
    engine: Engine, dataset: AnnotatedImages, config: PreprocessConfig, *, on_image: Callable[[], None] = lambda: None
) -> Evaluation:
    """Score what an engine finds, image by image as `fpnkit predict` does; there are no proposals to score.

    Args:
        engine: any.
        dataset: ground truth; its classes are the engine's, by label.
        config: how images are prepared.
        on_image: told of each finished image.
    Raises:
        DataError: an image cannot be read, or there is no object to find.
    """
    require_objects(dataset)
    detections: list[dict[str, Any]] = []
    for record in dataset.records:
        (found,) = engine.detect([to_tensor(read_image(record.path))], config)
        detections += coco_results(found, record, dataset)
        on_image()
    return score(detections, None, dataset)


def collect(
    find: Find,
    dataset: AnnotatedImages,
    preprocess: Preprocess,
    *,
    device: torch.device | str,
    precision: str,
    batch_size: int = 1,
    workers: int = 0,
    on_batch: Callable[[int], None] = lambda images: None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Everything that is found in a data set, in original pixels: detections and proposals, as COCO results.

    Args:
        find: a batch -> for each image its proposals and detections; None for what is not made.
        dataset, preprocess, device, precision, batch_size, workers, on_batch: as for `evaluate`.
    Raises:
        DataError: an image cannot be read.
    """
    data = DetectionDataset(dataset, preprocess)
    loader, _ = make_loader(data, batch_size=batch_size, workers=workers, shuffle=False)
    detections: list[dict[str, Any]] = []
    proposals: list[dict[str, Any]] = []
    for batch, _, records in loader:
        with mixed_precision(device, precision):
            found = find(preprocess.normalise(batch.to(device)))
        for index, (record, (proposed, detected)) in enumerate(zip(records, found, strict=True)):
            if detected is not None:
                detections += coco_results(restore(detected.to("cpu"), batch, index), record, dataset)
            if proposed is not None:
                proposals += _proposal_results(restore(proposed.to("cpu"), batch, index), record, dataset)
        on_batch(len(records))
    return detections, proposals


def score(
    detections: list[dict[str, Any]], proposals: list[dict[str, Any]] | None, dataset: AnnotatedImages
) -> Evaluation:
    """COCO figures of results that are already there; both may be empty, and proposals None where there are none.

    Raises:
        DataError: the data set holds no object to find, or its file is no longer there.
    """
    require_objects(dataset)
    judged = _judge(detections, ground_truth(dataset), per_class=True, most=(1, 10, 100))
    metrics = dict(zip(METRICS, map(float, judged.stats[: len(METRICS)]), strict=True))
    if proposals is not None:
        metrics |= score_proposals(proposals, dataset)
    by_label = np.searchsorted(np.sort(dataset.category_ids), dataset.category_ids)
    return Evaluation(metrics, detections, judged.eval["precision"][:, :, by_label, 0, -1])


def score_proposals(proposals: list[dict[str, Any]], dataset: AnnotatedImages) -> dict[str, float]:
    """Average recall of proposals, whatever the class: `proposals/AR_100`, `proposals/AR_1000`, and `AR_1000` of
    small, medium and large objects.

    Source: arXiv:1612.03144, section 5.1: what Table 1 reports.
    """
    recall = _judge(proposals, ground_truth(dataset), per_class=False, most=(100, 1000, 1000)).eval["recall"]
    metrics = {f"proposals/AR_{most}": _mean(recall[:, :, 0, place]) for place, most in enumerate((100, 1000))}
    for area, size in enumerate(("small", "medium", "large"), start=1):
        metrics[f"proposals/AR_1000_{size}"] = _mean(recall[:, :, area, 1])
    return metrics


def coco_results(found: Detections, record: Record, dataset: AnnotatedImages) -> list[dict[str, Any]]:
    """Detections of one image, in original pixels, as COCO results."""
    return [
        {
            "image_id": record.image_id,
            "category_id": dataset.category_ids[label],
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "score": value,
        }
        for box, label, value in zip(
            found.boxes_xyxy.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
        )
    ]


def _proposal_results(found: Proposals, record: Record, dataset: AnnotatedImages) -> list[dict[str, Any]]:
    return [
        {
            "image_id": record.image_id,
            "category_id": dataset.category_ids[0],
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "score": value,
        }
        for box, value in zip(found.boxes_xyxy.tolist(), found.scores.tolist(), strict=True)
    ]


def _judge(results: list[dict[str, Any]], truth: dict[str, Any], *, per_class: bool, most: tuple[int, int, int]) -> Any:
    """COCO's evaluation of results against the usable annotations, by a library that gives pycocotools' figures."""
    from faster_coco_eval import COCOeval_faster

    with contextlib.redirect_stdout(io.StringIO()):
        annotated = _indexed(truth)
        found = annotated.loadRes(_copied(results)) if results else _indexed({**truth, "annotations": []})
        judged = COCOeval_faster(annotated, found, "bbox")
        judged.params.useCats = int(per_class)
        judged.params.maxDets = list(most)
        judged.evaluate()
        judged.accumulate()
        if per_class:
            judged.summarize()
    return judged


def _indexed(truth: dict[str, Any]) -> Any:
    from faster_coco_eval import COCO

    coco = COCO()
    coco.dataset = {**truth, "info": {}, "annotations": _copied(truth["annotations"])}
    coco.createIndex()
    return coco


def _copied(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For the library, which writes into what it gets."""
    return [dict(entry) for entry in entries]


def _mean(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0
