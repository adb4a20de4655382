"""What is trained in a row: an RPN, Fast R-CNN on fixed proposals, or Faster R-CNN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ..detectors import RPN, FastRCNN, PyramidNetwork
from ..evaluation.evaluate import PROPOSALS
from ..inference.torch_engine import FindInBatch
from ..structures import Detections, ImageBatch, Proposals, Targets
from ..weights import InitialWeights
from ..zoo.builder import build_network
from ..zoo.spec import ModelSpec


@dataclass(frozen=True)
class Task:
    """A network with what training and evaluation ask of it.

    Attributes:
        kind: `rpn`, `fast_rcnn` or `faster_rcnn`.
        detector: that learns.
        losses: of a batch.
        find: proposals and detections of a batch.
    """

    kind: str
    detector: PyramidNetwork
    losses: Callable[[ImageBatch, Targets], dict[str, Tensor]]
    find: FindInBatch


def make_task(
    spec: ModelSpec, classes: int, *, weights: InitialWeights | None = None, proposer: RPN | None = None
) -> Task:
    """Build the network of a row.

    Args:
        spec: of the row.
        classes: without background.
        weights: of the backbone; None leaves them random.
        proposer: a trained RPN whose proposals Fast R-CNN reads.
    """
    network = build_network(spec, classes)
    if weights is not None:
        weights.fill_backbone(network.backbone, spec.backbone)
    if isinstance(network, RPN):
        return _rpn(network)
    if isinstance(network, FastRCNN):
        assert proposer is not None
        return _fast_rcnn(network, proposer)
    find = partial(network.detect_and_propose, proposals=PROPOSALS)
    return Task("faster_rcnn", network, network.losses, find)


def _rpn(detector: RPN) -> Task:
    def find(batch: ImageBatch) -> Sequence[tuple[Proposals | None, Detections | None]]:
        made = detector.propose(batch, count=PROPOSALS)
        return [(made[i][made.valid[i]], None) for i in range(len(batch))]

    return Task("rpn", detector, detector.losses, find)


def _fast_rcnn(detector: FastRCNN, proposer: RPN) -> Task:
    def losses(batch: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        return detector.losses(batch, targets, proposer.propose(batch))

    def find(batch: ImageBatch) -> Sequence[tuple[Proposals | None, Detections | None]]:
        return [(None, found) for found in detector.detect(batch, proposer.propose(batch))]

    return Task("fast_rcnn", detector, losses, find)
