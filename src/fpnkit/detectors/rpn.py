"""A Region Proposal Network alone, arXiv:1612.03144, section 4.1: what Table 1 measures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..backbones import Backbone
from ..heads import RPNHead
from ..outputs import BASE_OUTPUTS
from ..pyramids import Pyramid
from ..structures import ImageBatch, Proposals, Targets
from .detector import require_inference_mode
from .pyramid_network import PyramidNetwork, padded_hw


class RPN(PyramidNetwork):
    """Backbone, pyramid and RPN head: class-agnostic proposals.

    Args:
        backbone: gives C2..C5.
        pyramid: takes `backbone.levels`, gives P2..P6.
        rpn: the head.
    Raises:
        ConfigError: a part was built for other levels than it gets.
    """

    outputs = BASE_OUTPUTS[:2]

    def __init__(self, *, backbone: Backbone, pyramid: Pyramid, rpn: RPNHead) -> None:
        nn.Module.__init__(self)
        self.set_parts(backbone, pyramid, (rpn,))
        self.rpn = rpn

    def forward(self, images: Tensor, sizes_hw: Tensor) -> dict[str, Tensor]:
        """The whole network as one graph of fixed output size, for compilers and exporters.

        Args:
            images: (N, 3, H, W) normalised and padded; any N, H, W.
            sizes_hw: (N, 2) float height and width inside the padding.
        Returns:
            boxes_xyxy (N, K, 4) in the pixels of `images`, scores (N, K): objectness in 0..1, valid (N, K).
        """
        made = self._propose(images, sizes_hw)
        return {"boxes_xyxy": made.boxes_xyxy, "scores": made.scores.sigmoid(), "valid": made.valid}

    def losses(self, batch: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        """`rpn_objectness` and `rpn_box`; labels are not looked at."""
        features = self.features(batch.images)
        logits, deltas = self.rpn(features)
        return self.rpn.losses(logits, deltas, self.rpn.anchors(features, padded_hw(batch.images)), targets)

    @torch.no_grad()
    def propose(self, batch: ImageBatch, *, count: int | None = None) -> Proposals:
        """The proposals of a batch, best first, padded: (N, count, ...), in the pixels of the batch; fit to train with.

        Args:
            batch: images.
            count: proposals an image, by default the head's own number.
        Raises:
            ConfigError: the detector is in training mode.
        """
        require_inference_mode(self)
        return self._propose(batch.images, batch.sizes_hw, count=count)

    def detect(self, batch: ImageBatch) -> list[Proposals]:
        """The proposals of each image, without padding."""
        made = self.propose(batch)
        return [made[i][made.valid[i]] for i in range(len(batch))]

    def _propose(self, images: Tensor, sizes_hw: Tensor, *, count: int | None = None) -> Proposals:
        features = self.features(images)
        return self.rpn.proposals(features, padded_hw(images), sizes_hw, count=count)
