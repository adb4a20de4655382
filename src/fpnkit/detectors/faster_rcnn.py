"""Faster R-CNN on a feature pyramid, arXiv:1612.03144, sections 4 and 5."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..backbones import Backbone
from ..heads import FastRCNNHead, RoIHead, RPNHead
from ..outputs import BASE_OUTPUTS, OutputSpec, Postprocess
from ..pyramids import Pyramid
from ..structures import (
    ClassLayer,
    Detections,
    Features,
    ImageBatch,
    Inspection,
    LevelSpec,
    Proposals,
    Targets,
)
from .detector import Detector, as_named, require_inference_mode
from .pyramid_network import PyramidNetwork, padded_hw


class FasterRCNN(PyramidNetwork, Detector):
    """Backbone, pyramid, RPN and RoI head, trained jointly.

    Args:
        backbone: gives C2..C5.
        pyramid: takes `backbone.levels`, gives P2..P6.
        rpn: proposes boxes from all pyramid levels.
        roi: classifies and refines them.
        postprocess: least score, NMS threshold and number of detections.
    Raises:
        ConfigError: a part was built for other levels than it gets.
    """

    outputs = (*BASE_OUTPUTS, OutputSpec("levels", "int64"))

    def __init__(
        self,
        *,
        backbone: Backbone,
        pyramid: Pyramid,
        rpn: RPNHead,
        roi: RoIHead,
        postprocess: Postprocess | None = None,
    ) -> None:
        Detector.__init__(self, postprocess=postprocess)
        self.set_parts(backbone, pyramid, (rpn, roi))
        self.rpn = rpn
        self.roi = roi

    @property
    def num_classes(self) -> int:
        """Classes, without background."""
        return self.roi.num_classes

    def forward(self, images: Tensor, sizes_hw: Tensor) -> dict[str, Tensor]:
        """See `Detector.forward`; `levels` is the k of the level P_k that eq. 1 gave the RoI."""
        features = self.features(images)
        proposals = self.rpn.proposals(features, padded_hw(images), sizes_hw)
        return as_named(self._detected(features, proposals, sizes_hw))

    @torch.inference_mode()
    def detect_and_propose(
        self, batch: ImageBatch, *, proposals: int = 1000
    ) -> list[tuple[Proposals | None, Detections]]:
        """See `Detector`; the RoI head sees the best `rpn.config.proposals` of the proposals.

        Raises:
            ConfigError: the detector is in training mode.
        """
        require_inference_mode(self)
        features = self.features(batch.images)
        used = self.rpn.config.proposals
        made = self.rpn.proposals(features, padded_hw(batch.images), batch.sizes_hw, count=max(used, proposals))
        found = self._detected(features, _best(made, used), batch.sizes_hw)
        wanted = _best(made, proposals)
        return [(wanted[i][wanted.valid[i]], found[i].unpadded()) for i in range(len(batch))]

    def losses(self, batch: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        """The losses of joint training: `rpn_objectness`, `rpn_box`, `roi_class`, `roi_box`, and of a cascade more."""
        features = self.features(batch.images)
        logits, deltas = self.rpn(features)
        anchors = self.rpn.anchors(features, padded_hw(batch.images))
        proposals = self.rpn.propose(logits, deltas, anchors, batch.sizes_hw)
        return {
            **self.rpn.losses(logits, deltas, anchors, targets),
            **self.roi.losses(features, proposals, targets),
        }

    @torch.inference_mode()
    def inspect(self, batch: ImageBatch) -> Inspection:
        """See `Detector.inspect`."""
        require_inference_mode(self)
        features = self.features(batch.images)
        logits, deltas = self.rpn(features)
        grids = self.rpn.anchor_grids(features, padded_hw(batch.images))
        proposals = self.rpn.propose(logits, deltas, grids, batch.sizes_hw)
        found = self._detected(features, proposals, batch.sizes_hw)
        detections = [found[index].unpadded() for index in range(len(batch))]
        return Inspection(detections, features, self.rpn.responses(features, logits))

    def assign_levels(self, boxes_xyxy: Tensor) -> tuple[tuple[LevelSpec, ...], Tensor]:
        """See `Detector.assign_levels`: eq. 1."""
        return self.roi.levels, self.roi.assign_levels(boxes_xyxy)

    def steps(self, images: Tensor, sizes_hw: Tensor) -> Iterator[str]:
        """See `Detector.steps`."""
        features = self.features(images)
        yield "backbone and pyramid"
        logits, deltas = self.rpn(features)
        yield "RPN head"
        proposals = self.rpn.propose(logits, deltas, self.rpn.anchor_grids(features, padded_hw(images)), sizes_hw)
        yield "proposals"
        self._detected(features, proposals, sizes_hw)
        yield "RoI head and suppression"

    def class_layers(self) -> tuple[ClassLayer, ...]:
        """See `Detector.class_layers`: scores and box deltas of each RoI head."""
        heads = [name for name, module in self.named_modules() if isinstance(module, FastRCNNHead)]
        return tuple(
            layer
            for head in heads
            for layer in (ClassLayer(f"{head}.scores", background=True), ClassLayer(f"{head}.deltas", rows=4))
        )

    def _detected(self, features: Features, proposals: Proposals, sizes_hw: Tensor) -> Detections:
        return self.roi.detect(features, proposals, sizes_hw, self.postprocess)


def _best(made: Proposals, count: int) -> Proposals:
    return Proposals(made.boxes_xyxy[:, :count], made.scores[:, :count], made.valid[:, :count])
