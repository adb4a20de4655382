"""A Region Proposal Network alone, arXiv:1612.03144, section 4.1: what Table 1 measures."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backbones import Backbone
from ..heads import RPNHead
from ..pyramids import Pyramid
from ..structures import ImageBatch, Proposals, Targets
from .pyramid_detector import PyramidDetector, image_size


class RPN(PyramidDetector):
    """Backbone, pyramid and RPN head: class-agnostic proposals.

    Args:
        backbone: gives C2..C5.
        pyramid: takes `backbone.levels`, gives P2..P6.
        rpn: the head.
    Raises:
        ConfigError: a part was built for other levels than it gets.
    """

    def __init__(self, *, backbone: Backbone, pyramid: Pyramid, rpn: RPNHead) -> None:
        super().__init__(backbone=backbone, pyramid=pyramid, heads=(rpn,))
        self.rpn = rpn

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The whole network as one graph of fixed output size, for compilers and exporters.

        Args:
            images: (N, 3, H, W) normalised and padded; any N, H, W.
            sizes: (N, 2) float height and width inside the padding.
        Returns:
            boxes_xyxy (N, K, 4), objectness (N, K) in 0..1, valid (N, K), in the pixels of `images`.
        """
        made = self._propose(images, sizes)
        return made.boxes_xyxy, made.scores.sigmoid(), made.valid

    def losses(self, batch: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        """`rpn_objectness` and `rpn_box`; labels are not looked at."""
        features = self.features(batch.images)
        logits, deltas = self.rpn(features)
        return self.rpn.losses(logits, deltas, self.rpn.anchors(features, image_size(batch.images)), targets)

    @torch.no_grad()
    def propose(self, batch: ImageBatch, *, count: int | None = None) -> Proposals:
        """The proposals of a batch, best first, padded: (N, count, ...), in the pixels of the batch; fit to train with.

        Args:
            batch: images.
            count: proposals an image, by default the head's own number.
        Raises:
            ConfigError: the detector is in training mode.
        """
        self.require_inference_mode()
        return self._propose(batch.images, batch.sizes, count=count)

    def detect(self, batch: ImageBatch) -> list[Proposals]:
        """The proposals of each image, without padding."""
        made = self.propose(batch)
        return [made[i][made.valid[i]] for i in range(len(batch))]

    def _propose(self, images: Tensor, sizes: Tensor, *, count: int | None = None) -> Proposals:
        features = self.features(images)
        return self.rpn.proposals(features, image_size(images), sizes, count=count)
