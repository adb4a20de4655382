"""Faster R-CNN on a feature pyramid, arXiv:1612.03144, sections 4 and 5."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backbones import Backbone
from ..heads import RoIHead, RPNHead
from ..pyramids import Pyramid
from ..structures import Detections, ImageBatch, Proposals, Targets
from .pyramid_detector import PyramidDetector, image_size


class FasterRCNN(PyramidDetector):
    """Backbone, pyramid, RPN and RoI head, trained jointly.

    Args:
        backbone: gives C2..C5.
        pyramid: takes `backbone.levels`, gives P2..P6.
        rpn: proposes boxes from all pyramid levels.
        roi: classifies and refines them.
    Raises:
        ConfigError: a part was built for other levels than it gets.
    """

    def __init__(self, *, backbone: Backbone, pyramid: Pyramid, rpn: RPNHead, roi: RoIHead) -> None:
        super().__init__(backbone=backbone, pyramid=pyramid, heads=(rpn, roi))
        self.rpn = rpn
        self.roi = roi

    @property
    def num_classes(self) -> int:
        """Classes, without background."""
        return self.roi.num_classes

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The whole detector as one graph of fixed output size, for compilers and exporters.

        Args:
            images: (N, 3, H, W) normalised and padded; any N, H, W.
            sizes: (N, 2) float height and width inside the padding.
        Returns:
            boxes_xyxy (N, D, 4), scores (N, D), labels (N, D), levels (N, D), valid (N, D), in the pixels of `images`.
        """
        features = self.features(images)
        proposals = self.rpn.proposals(features, image_size(images), sizes)
        found = self.roi.detect(features, proposals, sizes)
        return found.boxes_xyxy, found.scores, found.labels, found.levels, found.valid

    @torch.inference_mode()
    def detect(self, batch: ImageBatch) -> list[Detections]:
        """The objects of each image, best first, in the pixels of the batch."""
        return [found for _, found in self.detect_and_propose(batch, proposals=self.rpn.config.proposals)]

    @torch.inference_mode()
    def detect_and_propose(self, batch: ImageBatch, *, proposals: int = 1000) -> list[tuple[Proposals, Detections]]:
        """What RPN and detector find from one pass, to measure both.

        Args:
            batch: images.
            proposals: how many the RPN returns; the RoI head sees the best `rpn.config.proposals` of them.
        Returns:
            For each image its proposals and detections, best first, in the pixels of the batch.
        Raises:
            ConfigError: the detector is in training mode.
        """
        self.require_inference_mode()
        features = self.features(batch.images)
        made = self.rpn.proposals(features, image_size(batch.images), batch.sizes, count=proposals)
        used = self.rpn.config.proposals
        seen = Proposals(made.boxes_xyxy[:, :used], made.scores[:, :used], made.valid[:, :used])
        found = self.roi.detect(features, seen, batch.sizes)
        return [(made[i][made.valid[i]], found[i].unpadded()) for i in range(len(batch))]

    def losses(self, batch: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        """The four losses of joint training: `rpn_objectness`, `rpn_box`, `roi_class`, `roi_box`."""
        features = self.features(batch.images)
        logits, deltas = self.rpn(features)
        anchors = self.rpn.anchors(features, image_size(batch.images))
        proposals = self.rpn.propose(logits, deltas, anchors, batch.sizes)
        return {
            **self.rpn.losses(logits, deltas, anchors, targets),
            **self.roi.losses(features, proposals, targets),
        }
