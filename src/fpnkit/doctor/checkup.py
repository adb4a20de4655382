"""Everything that is worth knowing of annotated images before a training."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.annotated import AnnotatedImages, Problem, object_area
from ..data.preprocess import Preprocess
from ..zoo import build, preset
from .anchors import MATCHED, AnchorPlan, advice, best_anchors
from .likeness import alike

SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, float("inf"))}
"""COCO's ranges of area in pixels."""


@dataclass(frozen=True)
class SplitCount:
    """One split.

    Attributes:
        images, boxes: usable ones.
        background: images without a box.
        classes: name -> boxes.
        sizes: `small`, `medium`, `large` -> boxes.
    """

    images: int
    boxes: int
    background: int
    classes: dict[str, int]
    sizes: dict[str, int]


@dataclass(frozen=True)
class Unmatched:
    """A box that no anchor matches."""

    file: str
    label: str
    bbox: tuple[float, ...]
    iou: float


@dataclass(frozen=True)
class Coverage:
    """How the anchors of a model fit.

    Attributes:
        model: its name in the zoo.
        size: short and long side that images are resized to.
        share: of the boxes that an anchor matches at IoU 0.5; 1 without boxes.
        levels: level -> boxes whose best anchor is there.
        unmatched: boxes without, the worst first.
        advice: what to change.
    """

    model: str
    size: tuple[int, int]
    share: float
    levels: dict[str, int]
    unmatched: tuple[Unmatched, ...]
    advice: tuple[str, ...]


@dataclass(frozen=True)
class Twins:
    """Two images of different splits that show the same."""

    first: str
    second: str
    likeness: float


@dataclass(frozen=True)
class Checkup:
    """The report.

    Attributes:
        data: what was looked at.
        images, boxes: all of them, the bad ones included.
        problems: every bad record.
        splits: name -> counts of what is usable.
        anchors: how a model's anchors fit what is usable.
        twins: images that are in two splits.
    """

    data: str
    images: int
    boxes: int
    problems: tuple[Problem, ...]
    splits: dict[str, SplitCount]
    anchors: Coverage
    twins: tuple[Twins, ...]

    @property
    def classes(self) -> dict[str, int]:
        """Boxes of each class in all splits, most first."""
        total = Counter({name: 0 for each in self.splits.values() for name in each.classes})
        for each in self.splits.values():
            total.update(each.classes)
        return dict(total.most_common())

    def as_plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def examine(
    data: str, splits: Mapping[str, AnnotatedImages], model: str, *, on_image: Callable[[], None] = lambda: None
) -> Checkup:
    """Look at everything.

    Args:
        data: what to call it.
        splits: name -> data of the same classes, with images that can be decoded.
        model: name in the zoo, for the anchors.
        on_image: told of each image that was compared with those of other splits.
    Raises:
        ConfigError: no such model.
    """
    problems = tuple(problem for each in splits.values() for problem in each.problems)
    of_images = sum(problem.record.startswith(("image", "file")) for problem in problems)
    of_boxes = sum(problem.record.startswith(("annotation", "object", "line")) for problem in problems)
    counts = {name: _count(each) for name, each in splits.items()}
    return Checkup(
        data=data,
        images=sum(each.images for each in counts.values()) + of_images,
        boxes=sum(each.boxes for each in counts.values()) + of_boxes,
        problems=problems,
        splits=counts,
        anchors=_coverage(splits, model),
        twins=_twins(splits, on_image),
    )


def comparisons(splits: Mapping[str, AnnotatedImages]) -> int:
    """How often `on_image` will be told."""
    return (len(splits) - 1) * sum(len(each.records) for each in splits.values())


def _count(dataset: AnnotatedImages) -> SplitCount:
    classes = Counter(label for record in dataset.records for label in record.labels)
    areas = [object_area(entry) for record in dataset.records for entry in record.annotations]
    return SplitCount(
        images=len(dataset.records),
        boxes=len(areas),
        background=sum(not record.labels for record in dataset.records),
        classes={name: classes[label] for label, name in enumerate(dataset.classes)},
        sizes={name: sum(low <= area < high for area in areas) for name, (low, high) in SIZES.items()},
    )


def _coverage(splits: Mapping[str, AnnotatedImages], model: str) -> Coverage:
    plan, preprocess = anchor_plan(model), Preprocess(preset(model).preprocess)
    rows: list[tuple[str, str, tuple[float, ...]]] = []
    boxes, canvas = [], []
    for dataset in splits.values():
        for record in dataset.records:
            height, width = preprocess.resized(record.height, record.width)
            scale = (width / record.width, height / record.height) * 2
            for box, label, crowd, entry in zip(
                record.boxes_xyxy, record.labels, record.crowd, record.annotations, strict=True
            ):
                if not crowd:
                    rows.append((str(record.path), dataset.classes[label], tuple(entry["bbox"])))
                    boxes.append([side * factor for side, factor in zip(box, scale, strict=True)])
                    canvas.append((width, height))
    boxes_xyxy, sizes = np.array(boxes).reshape(-1, 4), np.array(canvas).reshape(-1, 2)
    iou, levels = best_anchors(plan, boxes_xyxy, sizes)
    worst_first = sorted(zip(rows, iou.round(3).tolist(), strict=True), key=lambda pair: pair[1])
    unmatched = [(row, each) for row, each in worst_first if each < MATCHED]
    return Coverage(
        model=model,
        size=(preprocess.config.short_side, preprocess.config.long_side),
        share=float((iou >= MATCHED).mean()) if len(iou) else 1.0,
        levels={f"P{number}": int((levels == number).sum()) for number, _, _ in plan.levels},
        unmatched=tuple(Unmatched(*each, iou) for each, iou in unmatched),
        advice=tuple(advice(plan, boxes_xyxy, sizes, levels)),
    )


def anchor_plan(model: str) -> AnchorPlan:
    """The anchors of a model of the zoo."""
    rpn = build(model, 1).rpn
    levels = tuple((level.number, level.stride, tuple(level.serves)) for level in rpn.levels)
    return AnchorPlan(levels, rpn.config.anchor_scale, tuple(rpn.config.ratios), rpn.config.anchor_offset)


def _twins(splits: Mapping[str, AnnotatedImages], on_image: Callable[[], None]) -> tuple[Twins, ...]:
    found = []
    for one, two in itertools.combinations(splits.values(), 2):
        first, second = ([record.path for record in each.records] for each in (one, two))
        found += [_pair(first[i], second[j], likeness) for i, j, likeness in alike(first, second, on_image=on_image)]
    return tuple(found)


def _pair(first: Path, second: Path, likeness: float) -> Twins:
    return Twins(str(first), str(second), round(likeness, 4))
