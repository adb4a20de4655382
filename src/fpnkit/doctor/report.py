"""What there is to know of annotated images before a training."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.annotated import AnnotatedImages, Problem
from ..data.paths import MAX_PIXELS
from ..errors import ConfigError
from ..settings import did_you_mean
from ..weights.checkpoint import read_card
from ..weights.find import find_weights
from ..zoo.presets import PRESETS
from ..zoo.shipped import SHA256
from ..zoo.spec import ModelSpec
from .anchors import MIN_IOU, AnchorLayout, advice, anchor_layout, best_anchors
from .duplicates import find_duplicates

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
class UnmatchedBox:
    """A box that no anchor matches; `bbox` is x, y, width and height as annotated."""

    file: str
    label: str
    bbox: tuple[float, ...]
    iou: float


@dataclass(frozen=True)
class AnchorReport:
    """How the anchors of a model fit.

    Attributes:
        model: its name, or the run or file that it is in.
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
    unmatched: tuple[UnmatchedBox, ...]
    advice: tuple[str, ...]


@dataclass(frozen=True)
class Duplicate:
    """Two images of different splits that show the same; `similarity` is a correlation, 1 for equal ones."""

    first: str
    second: str
    similarity: float


@dataclass(frozen=True)
class DataReport:
    """The report.

    Attributes:
        data: what was looked at.
        images, boxes: all of them, the bad ones included.
        problems: every bad record.
        splits: name -> counts of what is usable.
        anchors: how a model's anchors fit what is usable; None for a model without.
        duplicates: images that are in two splits.
    """

    data: str
    images: int
    boxes: int
    problems: tuple[Problem, ...]
    splits: dict[str, SplitCount]
    anchors: AnchorReport | None
    duplicates: tuple[Duplicate, ...]

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
    data: str,
    splits: Mapping[str, AnnotatedImages],
    model: str | Path,
    *,
    max_pixels: int = MAX_PIXELS,
    on_image: Callable[[], None] = lambda: None,
) -> DataReport:
    """Count, check and compare everything.

    Args:
        data: what to call it.
        splits: name -> data of the same classes, with images that can be decoded.
        model: whose anchors: a preset, shipped weights, the folder of a run or a weights file.
        max_pixels: see `read_image`.
        on_image: called after each image that was compared with those of other splits.
    Raises:
        ConfigError: no such model.
        CheckpointError: its file is damaged.
    """
    problems = tuple(problem for each in splits.values() for problem in each.problems)
    of_images = sum(problem.record.startswith(("image", "file")) for problem in problems)
    of_boxes = sum(problem.record.startswith(("annotation", "object", "line")) for problem in problems)
    counts = {name: _count(each) for name, each in splits.items()}
    spec = spec_of(model)
    layout = anchor_layout(spec) if spec else None
    return DataReport(
        data=data,
        images=sum(each.images for each in counts.values()) + of_images,
        boxes=sum(each.boxes for each in counts.values()) + of_boxes,
        problems=problems,
        splits=counts,
        anchors=_anchor_report(splits, str(model), spec, layout) if spec and layout else None,
        duplicates=_duplicates(splits, max_pixels, on_image),
    )


def comparisons(splits: Mapping[str, AnnotatedImages]) -> int:
    """How often `examine` calls `on_image`."""
    return (len(splits) - 1) * sum(len(each.records) for each in splits.values())


def spec_of(model: str | Path) -> ModelSpec | None:
    """The spec of a preset, of shipped weights, of a run's folder or of a weights file; None of a detector of your own.

    Raises:
        ConfigError: there is no such model; the nearest name is given.
        CheckpointError: the file is damaged.
    """
    name = str(model)
    if name in PRESETS:
        return PRESETS[name]
    if name not in SHA256 and not Path(model).exists():
        hint = did_you_mean(name, [*PRESETS, *SHA256], "presets and shipped models")
        raise ConfigError(f"there is no preset, run's folder or weights file {name!r}: {hint}")
    return read_card(find_weights(model)).spec


def _count(dataset: AnnotatedImages) -> SplitCount:
    objects = [each for record in dataset.records for each in record.objects]
    classes = Counter(each.label for each in objects)
    return SplitCount(
        images=len(dataset.records),
        boxes=len(objects),
        background=sum(not record.objects for record in dataset.records),
        classes={name: classes[label] for label, name in enumerate(dataset.classes)},
        sizes={name: sum(low <= each.area < high for each in objects) for name, (low, high) in SIZES.items()},
    )


def _anchor_report(
    splits: Mapping[str, AnnotatedImages], model: str, spec: ModelSpec, layout: AnchorLayout
) -> AnchorReport:
    rows: list[tuple[str, str, tuple[float, ...]]] = []
    boxes, canvas_wh = [], []
    for dataset in splits.values():
        for record in dataset.records:
            height, width = spec.preprocess.resized_hw(record.height, record.width)
            scale = (width / record.width, height / record.height) * 2
            for each in record.objects:
                if not each.crowd:
                    rows.append((str(record.path), dataset.classes[each.label], each.bbox))
                    boxes.append([side * factor for side, factor in zip(each.box_xyxy, scale, strict=True)])
                    canvas_wh.append((width, height))
    boxes_xyxy, sizes_wh = np.array(boxes).reshape(-1, 4), np.array(canvas_wh).reshape(-1, 2)
    iou, levels = best_anchors(layout, boxes_xyxy, sizes_wh)
    worst_first = sorted(zip(rows, iou.round(3).tolist(), strict=True), key=lambda pair: pair[1])
    unmatched = [(row, each) for row, each in worst_first if each < MIN_IOU]
    return AnchorReport(
        model=model,
        size=(spec.preprocess.short_side, spec.preprocess.long_side),
        share=float((iou >= MIN_IOU).mean()) if len(iou) else 1.0,
        levels={f"P{number}": int((levels == number).sum()) for number, _, _ in layout.levels},
        unmatched=tuple(UnmatchedBox(*row, iou=each) for row, each in unmatched),
        advice=tuple(advice(layout, boxes_xyxy, sizes_wh, levels)),
    )


def _duplicates(
    splits: Mapping[str, AnnotatedImages], max_pixels: int, on_image: Callable[[], None]
) -> tuple[Duplicate, ...]:
    found = []
    for one, two in itertools.combinations(splits.values(), 2):
        first, second = ([record.path for record in each.records] for each in (one, two))
        pairs = find_duplicates(first, second, max_pixels=max_pixels, on_image=on_image)
        found += [Duplicate(str(first[i]), str(second[j]), round(similarity, 4)) for i, j, similarity in pairs]
    return tuple(found)
