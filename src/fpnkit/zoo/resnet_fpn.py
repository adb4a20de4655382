"""ResNet-FPN detectors with the habits of torchvision and detectron2, for weights that come from there."""

from __future__ import annotations

from dataclasses import dataclass

import torchvision
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter

from ..backbones import Backbone, wrap
from ..data.preprocess import IMAGENET_MEAN, IMAGENET_STD, PreprocessConfig
from ..detectors import RPN, FasterRCNN
from ..errors import ConfigError
from ..heads import FastRCNNConfig, FastRCNNHead, RPNConfig, RPNHead
from ..pyramids import FPN

DEPTHS = {"r50": 6, "r101": 23}
"""Names of ResNets, and the blocks of their fourth stage, by which a state dict tells its own."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a library's R50-FPN differs from another's.

    Attributes:
        library: torchvision or detectron2.
        stride_in_1x1: stages stride in their first 1x1 convolution, as the Caffe models do, not in the 3x3.
        bgr: the library feeds images as BGR.
        rpn, roi: numbers of the heads.
        preprocess: of images here, which are RGB in 0..1.
    """

    library: str
    stride_in_1x1: bool = False
    bgr: bool = False
    rpn: RPNConfig
    roi: FastRCNNConfig
    preprocess: PreprocessConfig


_DETECTRON2_RPN = RPNConfig(anchor_offset=0.0)
_DETECTRON2_ROI = FastRCNNConfig(sampling_ratio=0)

STYLES = {
    "torchvision_{}_fpn": Style(
        library="torchvision",
        rpn=RPNConfig(anchor_offset=0.0, round_anchors=True, strides_from_image=True),
        roi=FastRCNNConfig(aligned=False),
        preprocess=PreprocessConfig(
            short_side=800, long_side=1333, mean=IMAGENET_MEAN, std=IMAGENET_STD, antialias=False
        ),
    ),
    "detectron2_{}_fpn": Style(
        library="detectron2",
        stride_in_1x1=True,
        bgr=True,
        rpn=_DETECTRON2_RPN,
        roi=_DETECTRON2_ROI,
        preprocess=PreprocessConfig(short_side=800, long_side=1333, mean=IMAGENET_MEAN, std=(1 / 255,) * 3),
    ),
    "detectron2_{}_fpn_rgb": Style(
        library="detectron2",
        rpn=_DETECTRON2_RPN,
        roi=_DETECTRON2_ROI,
        preprocess=PreprocessConfig(short_side=800, long_side=1333, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    ),
}
"""Model name, with the ResNet's to fill in -> its style."""


def resnet_fpn(num_classes: int, *, depth: str, style: Style, pretrained: bool = False) -> FasterRCNN:
    """Faster R-CNN on ResNet-FPN with fresh weights.

    Args:
        num_classes: classes, without background.
        depth: a key of `DEPTHS`.
        style: a value of `STYLES`.
        pretrained: there is nothing to download; only False is taken.
    Raises:
        ConfigError: `pretrained`.
    """
    if pretrained:
        raise ConfigError(
            f"{style.library}'s {depth} takes its weights from a checkpoint (`fpnkit import`, then --from) or a file"
        )
    backbone = _backbone(depth, style)
    pyramid = FPN(backbone.levels, channels=256)
    roi = FastRCNNHead(pyramid.levels, num_classes, config=style.roi)
    return FasterRCNN(backbone=backbone, pyramid=pyramid, rpn=RPNHead(pyramid.levels, style.rpn), roi=roi)


def resnet_rpn(*, depth: str, style: Style) -> RPN:
    """The RPN alone; see `resnet_fpn`."""
    backbone = _backbone(depth, style)
    pyramid = FPN(backbone.levels, channels=256)
    return RPN(backbone=backbone, pyramid=pyramid, rpn=RPNHead(pyramid.levels, style.rpn))


def _backbone(depth: str, style: Style) -> Backbone:
    network = getattr(torchvision.models, depth.replace("r", "resnet"))(weights=None)
    if style.stride_in_1x1:
        for stage in (network.layer2, network.layer3, network.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, stage[0].conv1.stride
    body: nn.Module = IntermediateLayerGetter(network, {f"layer{stage}": f"{stage - 1}" for stage in (1, 2, 3, 4)})
    return wrap(body).freeze([body.conv1, body.layer1])  # type: ignore[list-item]
