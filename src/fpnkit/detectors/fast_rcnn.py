"""Fast R-CNN on given proposals, arXiv:1612.03144, section 4.2: what Table 2 measures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..backbones import Backbone
from ..heads import RoIHead
from ..ops.boxes import min_side
from ..outputs import BASE_OUTPUTS, OutputSpec, Postprocess
from ..pyramids import Pyramid
from ..structures import Detections, ImageBatch, Proposals, Targets
from .detector import as_named, require_inference_mode
from .pyramid_network import PyramidNetwork


class FastRCNN(PyramidNetwork):
    """Backbone, pyramid and RoI head: classes and boxes of proposals that come from elsewhere.

    Args:
        backbone: gives C2..C5.
        pyramid: takes `backbone.levels`, gives P2..P5.
        roi: the head.
        postprocess: least score, NMS threshold and number of detections.
    Raises:
        ConfigError: a part was built for other levels than it gets.
    """

    outputs = (*BASE_OUTPUTS, OutputSpec("levels", "int64"))
    inputs = (*PyramidNetwork.inputs, "proposals_xyxy")

    def __init__(
        self, *, backbone: Backbone, pyramid: Pyramid, roi: RoIHead, postprocess: Postprocess | None = None
    ) -> None:
        nn.Module.__init__(self)
        self.set_parts(backbone, pyramid, (roi,))
        self.roi = roi
        self.postprocess = postprocess or Postprocess()

    @property
    def num_classes(self) -> int:
        """Classes, without background."""
        return self.roi.num_classes

    def forward(self, images: Tensor, sizes_hw: Tensor, proposals_xyxy: Tensor) -> dict[str, Tensor]:
        """The whole detector as one graph of fixed output size, for compilers and exporters.

        Args:
            images: (N, 3, H, W) normalised and padded; any N, H, W.
            sizes_hw: (N, 2) float height and width inside the padding.
            proposals_xyxy: (N, K, 4) in the pixels of `images`; those without area are padding.
        Returns:
            boxes_xyxy (N, D, 4), scores (N, D), labels (N, D), levels (N, D), valid (N, D), in the pixels of `images`.
        """
        valid = min_side(proposals_xyxy) > 0
        given = Proposals(proposals_xyxy, torch.zeros_like(proposals_xyxy[..., 0]), valid)
        return as_named(self.roi.detect(self.features(images), given, sizes_hw, self.postprocess))

    def losses(self, batch: ImageBatch, targets: Targets, proposals: Proposals) -> dict[str, Tensor]:
        """`roi_class` and `roi_box` over proposals (N, K) in the pixels of the batch."""
        return self.roi.losses(self.features(batch.images), proposals, targets)

    @torch.inference_mode()
    def detect(self, batch: ImageBatch, proposals: Proposals) -> list[Detections]:
        """The objects of each image, best first, in the pixels of the batch.

        Raises:
            ConfigError: the detector is in training mode.
        """
        require_inference_mode(self)
        found = self.roi.detect(self.features(batch.images), proposals, batch.sizes_hw, self.postprocess)
        return [found[i].unpadded() for i in range(len(batch))]
