"""Does an exported graph find what the PyTorch model finds? Asked with real images of several shapes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..data.images import as_rgb_array
from ..data.pixels import PreprocessConfig, SizeHW
from ..graph.exported import Exported
from ..inference.boxes import iou
from ..inference.engines import Engine
from ..outputs import Arrays

OTHER: SizeHW = (333, 517)
"""Height and width of an image that has to be resized; odd in both."""

BATCHES = (1, 3)

MATCH_IOU = {"float32": 0.99, "bf16": 0.9, "int8": 0.75}
"""IoU above which two boxes are one, by precision: boxes of rounded numbers are never the very same."""


@dataclass(frozen=True)
class Case:
    """A batch of images of one shape, in both.

    Attributes:
        shape: height and width of the images.
        resampled: the graph resizes them by itself, and so to pixels that differ a little from PyTorch's.
        batch: how many.
        detections, found: of the PyTorch model and of the graph, of any score that they give.
        matched: share of both's detections that have a match: the same label, IoU above `MATCH_IOU`.
        box_difference: largest of any corner of matches, pixels.
        score_difference: largest of matches.
        torch_ms, graph_ms: for the whole batch, resizing included; the better of two runs after a first one.
    """

    shape: SizeHW
    resampled: bool
    batch: int
    detections: int
    found: int
    matched: float
    box_difference: float
    score_difference: float
    torch_ms: float
    graph_ms: float


@dataclass(frozen=True)
class Parity:
    """All cases together.

    Attributes:
        cases: every shape in every batch size.
    """

    cases: tuple[Case, ...]

    @property
    def matched(self) -> float:
        """Share of all detections that have a match, where both saw the same pixels."""
        cases = [case for case in self.cases if not case.resampled]
        total = sum(case.detections + case.found for case in cases)
        return sum(case.matched * (case.detections + case.found) for case in cases) / total if total else 1.0

    @property
    def box_difference(self) -> float:
        """Largest, pixels."""
        return max(case.box_difference for case in self.cases)

    @property
    def score_difference(self) -> float:
        """Largest."""
        return max(case.score_difference for case in self.cases)


def compare(
    graph: Engine,
    model: Engine,
    photos: Sequence[Image.Image],
    exported: Exported,
    *,
    on_case: Callable[[], None] = lambda: None,
) -> Parity:
    """Run both on the same images.

    Args:
        graph: the exported one.
        model: the PyTorch one.
        photos: one or more, stretched to the shapes.
        exported: what the graph is.
        on_case: told of each finished case.
    """
    cases = []
    for number, shape in enumerate(shapes_of(exported.preprocess)):
        for batch in BATCHES:
            chosen = [photos[(number + place) % len(photos)] for place in range(batch)]
            images = [as_rgb_array(photo.resize(shape[::-1])) for photo in chosen]
            resampled = exported.resizes and exported.preprocess.resized_hw(*shape) != shape
            cases.append(_case(graph, model, images, exported, resampled=resampled))
            on_case()
    return Parity(tuple(cases))


def shapes_of(config: PreprocessConfig) -> tuple[SizeHW, ...]:
    """Five that need no resizing, the last two of them with an odd side, and `OTHER`."""
    short, long = config.short_side, config.long_side
    two_thirds, two_fifths = (2 * short // 3 | 1, 2 * short // 5 | 1)
    return (short, long), (long, short), (short, short), (two_thirds, long), (long, two_fifths), OTHER


def _case(graph: Engine, model: Engine, images: Sequence[np.ndarray], exported: Exported, *, resampled: bool) -> Case:
    config = exported.preprocess
    wanted, torch_ms = _timed(model, images, config)
    found, graph_ms = _timed(graph, images, config)
    matches, boxes, scores = 0, [0.0], [0.0]
    for one, other in zip(wanted, found, strict=True):
        mine, theirs = _matched(one, other, MATCH_IOU[exported.precision])
        matches += len(mine)
        boxes += np.abs(one["boxes_xyxy"][mine] - other["boxes_xyxy"][theirs]).max(axis=1).tolist()
        scores += np.abs(one["scores"][mine] - other["scores"][theirs]).tolist()
    detections, count = (sum(len(each["scores"]) for each in every) for every in (wanted, found))
    return Case(
        shape=(images[0].shape[0], images[0].shape[1]),
        resampled=resampled,
        batch=len(images),
        detections=detections,
        found=count,
        matched=2 * matches / (detections + count) if detections + count else 1.0,
        box_difference=max(boxes),
        score_difference=max(scores),
        torch_ms=torch_ms,
        graph_ms=graph_ms,
    )


def _matched(one: Arrays, other: Arrays, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of detections that are each other's best match, of one label and nearly one place."""
    if not len(one["scores"]) or not len(other["scores"]):
        return np.zeros(0, dtype=int), np.zeros(0, dtype=int)
    overlaps = iou(one["boxes_xyxy"], other["boxes_xyxy"]) * (one["labels"][:, None] == other["labels"])
    best, place = overlaps.max(axis=1), overlaps.argmax(axis=1)
    mutual = overlaps.argmax(axis=0)[place] == np.arange(len(best))
    mine = np.flatnonzero(mutual & (best > least))
    return mine, place[mine]


def _timed(engine: Engine, images: Sequence[np.ndarray], config: PreprocessConfig) -> tuple[list[Arrays], float]:
    found, times = engine.detect(images, config), []
    for _ in range(2):
        began = time.perf_counter()
        engine.detect(images, config)
        times.append(time.perf_counter() - began)
    return found, 1000 * min(times)
