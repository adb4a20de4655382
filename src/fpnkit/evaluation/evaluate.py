"""Run an engine over annotated images, and score what it finds as COCO does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from ..data.annotated import AnnotatedImages, Record, require_objects
from ..data.paths import MAX_PIXELS
from ..data.pixels import PreprocessConfig
from ..data.read import read_record
from ..inference.engines import Engine
from ..inference.predictor import plain
from ..outputs import Arrays, singular
from .scores import Evaluation, score

PROPOSALS = 1000
"""Scored an image, where an engine proposes."""

Find = Callable[[Sequence[np.ndarray]], Sequence[tuple[Arrays | None, Arrays | None]]]
"""(H, W, 3) uint8 images -> proposals and detections of each in its own pixels; None for what is not made."""

Results = list[dict[str, Any]]


class Stopped(Exception):
    """`should_stop` said so in the midst of an evaluation."""


def evaluate(
    engine: Engine,
    dataset: AnnotatedImages,
    config: PreprocessConfig,
    *,
    batch_size: int = 1,
    workers: int = 0,
    max_pixels: int = MAX_PIXELS,
    on_images: Callable[[int], None] = lambda images: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Score an engine.

    Args:
        engine: any.
        dataset: ground truth; its classes are the engine's, by label.
        config: how the engine's images are prepared.
        batch_size: images a pass; the figures change only by padding, in the third digit.
        workers: threads that read images ahead.
        max_pixels: larger images are an error.
        on_images: told the number of images of each finished batch.
        should_stop: asked before each batch.
    Raises:
        DataError: an image cannot be read, or there is no object to find.
        Stopped: see `should_stop`.
    """
    require_objects(dataset)
    find = find_of(engine, config)
    options = {"batch_size": batch_size, "workers": workers, "max_pixels": max_pixels}
    found = collect(find, dataset, on_images=on_images, should_stop=should_stop, **options)
    return score(*found, dataset, most=engine.postprocess.detections)


def find_of(engine: Engine, config: PreprocessConfig) -> Find:
    """What an engine finds, as `collect` takes it."""
    return partial(engine.detect_and_propose, config=config, proposals=PROPOSALS)


def collect(
    find: Find,
    dataset: AnnotatedImages,
    *,
    batch_size: int = 1,
    workers: int = 0,
    max_pixels: int = MAX_PIXELS,
    on_images: Callable[[int], None] = lambda images: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Results, Results | None]:
    """Everything that is found in a data set, in original pixels: detections and proposals, as COCO results.

    Args:
        find: of images.
        dataset: whose images; it may be a part of one, without objects.
        batch_size, workers, max_pixels, on_images, should_stop: as for `evaluate`.
    Returns:
        Detections, and proposals: None where none were made.
    Raises:
        DataError: an image cannot be read, or is of another size than annotated.
        Stopped: see `should_stop`.
    """
    detections: Results = []
    proposals: Results | None = None
    groups = [dataset.records[start : start + batch_size] for start in range(0, len(dataset.records), batch_size)]
    for records, images in _read_ahead(groups, workers, max_pixels):
        if should_stop():
            raise Stopped
        for record, (proposed, detected) in zip(records, find(images), strict=True):
            if detected is not None:
                detections += coco_results(detected, record, dataset)
            if proposed is not None:
                labels = np.zeros(len(proposed["scores"]), dtype=np.int64)
                proposals = [] if proposals is None else proposals
                proposals += coco_results({**proposed, "labels": labels}, record, dataset)
        on_images(len(records))
    return detections, proposals


def coco_results(found: Arrays, record: Record, dataset: AnnotatedImages) -> Results:
    """Detections of one image, in original pixels, as COCO results; other outputs by the singular of their name."""
    boxes = found["boxes_xyxy"].tolist()
    named: dict[str, Sequence[Any]] = {
        "image_id": [record.image_id] * len(boxes),
        "category_id": [dataset.category_ids[label] for label in found["labels"].tolist()],
        "bbox": [[box[0], box[1], box[2] - box[0], box[3] - box[1]] for box in boxes],
        "score": found["scores"].tolist(),
    }
    others = {singular(name): plain(values) for name, values in found.items()}
    named = {**{name: others[name] for name in others if name not in ("box_xyxy", "score", "label")}, **named}
    return [dict(zip(named, row, strict=True)) for row in zip(*named.values(), strict=True)]


def _read_ahead(
    groups: Sequence[Sequence[Record]], workers: int, max_pixels: int
) -> Iterator[tuple[Sequence[Record], list[np.ndarray]]]:
    """Each group with its images, which threads read while others are computed."""
    if not workers:
        yield from ((group, [read_record(record, max_pixels=max_pixels) for record in group]) for group in groups)
        return
    waiting: deque[tuple[Sequence[Record], list[Future[np.ndarray]]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for group in groups:
                waiting.append((group, [pool.submit(read_record, record, max_pixels=max_pixels) for record in group]))
                if len(waiting) > workers:
                    yield _done(waiting.popleft())
            while waiting:
                yield _done(waiting.popleft())
        finally:
            for _, futures in waiting:
                for future in futures:
                    future.cancel()


def _done(group: tuple[Sequence[Record], list[Future[np.ndarray]]]) -> tuple[Sequence[Record], list[np.ndarray]]:
    return group[0], [future.result() for future in group[1]]
