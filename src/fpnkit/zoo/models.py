"""Named models: each a few lines of numbers."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial

from .. import backbones
from ..data.preprocess import IMAGENET_MEAN, IMAGENET_STD, PreprocessConfig
from ..detectors import FasterRCNN
from ..errors import ConfigError
from ..heads import CascadeHead, FastRCNNConfig, FastRCNNHead, RPNConfig, RPNHead
from ..pyramids import FPN
from .resnet_fpn import DEPTHS, STYLES, resnet_fpn


def faster_rcnn_r50_fpn(num_classes: int, *, pretrained: bool = False) -> FasterRCNN:
    """The paper's model: ResNet-50, d = 256, P2..P6."""
    backbone = backbones.timm("resnet50", pretrained=pretrained, frozen_stages=1)
    pyramid = FPN(backbone.levels, channels=256)
    rpn = RPNHead(pyramid.levels)
    roi = FastRCNNHead(pyramid.levels, num_classes)
    return FasterRCNN(backbone=backbone, pyramid=pyramid, rpn=rpn, roi=roi)


def faster_rcnn_lite0_fpn(num_classes: int, *, pretrained: bool = False) -> FasterRCNN:
    """The small model for CPUs: EfficientNet-Lite0, d = 64, P2..P6, fewer proposals."""
    backbone = backbones.timm("tf_efficientnet_lite0", pretrained=pretrained, frozen_stages=2)
    pyramid = FPN(backbone.levels, channels=64)
    rpn = RPNHead(pyramid.levels, RPNConfig(per_level=500, proposals=300, train_per_level=500, train_proposals=500))
    roi = FastRCNNHead(pyramid.levels, num_classes, config=FastRCNNConfig(samples=64))
    return FasterRCNN(backbone=backbone, pyramid=pyramid, rpn=rpn, roi=roi)


def cascade_rcnn_lite2_fpn(num_classes: int, *, pretrained: bool = False) -> FasterRCNN:
    """The best model that two CPU cores run many times a second: EfficientNet-Lite2, d = 96, heads in a cascade."""
    backbone = backbones.timm("tf_efficientnet_lite2", pretrained=pretrained, frozen_stages=2)
    pyramid = FPN(backbone.levels, channels=96)
    rpn_numbers = RPNConfig(  # anchors of 24 to 384 pixels: many objects are small
        anchor_scale=6, per_level=500, proposals=300, train_per_level=500, train_proposals=500
    )
    rpn = RPNHead(pyramid.levels, rpn_numbers)
    roi_numbers = FastRCNNConfig(hidden=512, samples=128, min_score=0.01)
    roi = CascadeHead(pyramid.levels, num_classes, stages=2, config=roi_numbers)
    return FasterRCNN(backbone=backbone, pyramid=pyramid, rpn=rpn, roi=roi)


MODELS: dict[str, Callable[..., FasterRCNN]] = {
    "faster_rcnn_r50_fpn": faster_rcnn_r50_fpn,
    "faster_rcnn_lite0_fpn": faster_rcnn_lite0_fpn,
    "cascade_rcnn_lite2_fpn": cascade_rcnn_lite2_fpn,
    **{
        pattern.format(depth): partial(resnet_fpn, depth=depth, style=style)
        for pattern, style in STYLES.items()
        for depth in DEPTHS
    },
}

_PREPROCESS = {
    "faster_rcnn_r50_fpn": PreprocessConfig(short_side=800, long_side=1333, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    "faster_rcnn_lite0_fpn": PreprocessConfig(short_side=480, long_side=640, mean=(0.5,) * 3, std=(0.5,) * 3),
    "cascade_rcnn_lite2_fpn": PreprocessConfig(short_side=640, long_side=856, mean=(0.5,) * 3, std=(0.5,) * 3),
    **{pattern.format(depth): style.preprocess for pattern, style in STYLES.items() for depth in DEPTHS},
}


def build(name: str, num_classes: int, *, pretrained: bool = False) -> FasterRCNN:
    """Make a named model with fresh heads.

    Args:
        name: a key of `MODELS`.
        num_classes: classes, without background.
        pretrained: let timm download ImageNet weights for the backbone.
    Raises:
        ConfigError: no such model.
    """
    return MODELS[_known(name)](num_classes, pretrained=pretrained)


def default_preprocess(name: str) -> PreprocessConfig:
    """The image size and normalisation that a named model is made for."""
    return _PREPROCESS[_known(name)]


def _known(name: str) -> str:
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the models are {', '.join(MODELS)}"
        raise ConfigError(f"there is no model named {name!r}: {hint}")
    return name
