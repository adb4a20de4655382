"""What is trained in a row: an RPN, Fast R-CNN on fixed proposals, or Faster R-CNN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from .. import backbones
from ..backbones import Backbone
from ..detectors import RPN, FasterRCNN, FastRCNN, PyramidDetector
from ..evaluation.evaluate import PROPOSALS, Find
from ..heads import FastRCNNHead, RPNHead
from ..structures import ImageBatch, Targets
from .config import StudyConfig
from .tables import MakePyramid


@dataclass(frozen=True)
class Task:
    """A detector with what training and evaluation ask of it.

    Attributes:
        kind: `rpn`, `fast_rcnn` or `faster_rcnn`.
        detector: whose weights move.
        losses: of a batch.
        find: proposals and detections of a batch.
    """

    kind: str
    detector: PyramidDetector
    losses: Callable[[ImageBatch, Targets], dict[str, Tensor]]
    find: Find


def make_task(
    kind: str,
    make_pyramid: MakePyramid,
    config: StudyConfig,
    classes: int,
    *,
    fill: Callable[[Backbone], None],
    proposer: RPN | None = None,
) -> Task:
    """Put the parts of a row together.

    Args:
        kind: `rpn`, `fast_rcnn` or `faster_rcnn`.
        make_pyramid: of the row.
        config: of the study.
        classes: without background.
        fill: gives the backbone its trained weights.
        proposer: a trained RPN whose proposals Fast R-CNN reads.
    """
    backbone = backbones.timm(config.backbone, frozen_stages=config.frozen_stages)
    fill(backbone)
    pyramid = make_pyramid(backbone.levels, config.channels)
    if kind == "rpn":
        return _rpn(RPN(backbone=backbone, pyramid=pyramid, rpn=RPNHead(pyramid.levels, config.rpn())))
    roi = FastRCNNHead(pyramid.levels, classes, config=config.roi())
    if kind == "fast_rcnn":
        assert proposer is not None
        return _fast_rcnn(FastRCNN(backbone=backbone, pyramid=pyramid, roi=roi), proposer)
    rpn = RPNHead(pyramid.levels, config.rpn())
    return _faster_rcnn(FasterRCNN(backbone=backbone, pyramid=pyramid, rpn=rpn, roi=roi))


def _rpn(detector: RPN) -> Task:
    def find(batch: ImageBatch):
        made = detector.propose(batch, count=PROPOSALS)
        return [(made[i][made.valid[i]], None) for i in range(len(batch))]

    return Task("rpn", detector, detector.losses, find)


def _fast_rcnn(detector: FastRCNN, proposer: RPN) -> Task:
    def losses(batch: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        return detector.losses(batch, targets, proposer.propose(batch))

    def find(batch: ImageBatch):
        return [(None, found) for found in detector.detect(batch, proposer.propose(batch))]

    return Task("fast_rcnn", detector, losses, find)


def _faster_rcnn(detector: FasterRCNN) -> Task:
    return Task("faster_rcnn", detector, detector.losses, partial(detector.detect_and_propose, proposals=PROPOSALS))
