"""Named models: each a few numbers."""

from __future__ import annotations

from dataclasses import replace

from ..backbones import BackboneConfig
from ..data.pixels import IMAGENET_MEAN, IMAGENET_STD, PreprocessConfig
from ..errors import ConfigError
from ..heads import CascadeConfig, FastRCNNConfig, Postprocess, RPNConfig
from ..pyramids import PyramidConfig
from ..settings import did_you_mean
from .spec import ModelSpec

HALF = (0.5, 0.5, 0.5)
"""Mean and deviation by which EfficientNet-Lite was trained."""

RESNETS = {"r50": "resnet50", "r101": "resnet101"}
"""In the names of presets -> the network."""

_LITE0 = ModelSpec(
    backbone=BackboneConfig(name="tf_efficientnet_lite0", frozen_stages=2),
    pyramid=PyramidConfig(channels=64),
    rpn=RPNConfig(per_level=500, proposals=300, train_per_level=500, train_proposals=500),
    roi=FastRCNNConfig(samples=64),
    preprocess=PreprocessConfig(short_side=480, long_side=640, mean=HALF, std=HALF),
)

_LITE2_CASCADE = ModelSpec(
    backbone=BackboneConfig(name="tf_efficientnet_lite2", frozen_stages=2),
    pyramid=PyramidConfig(channels=96),
    rpn=RPNConfig(  # anchors of 24 to 384 pixels: many objects are small
        anchor_scale=6, per_level=500, proposals=300, train_per_level=500, train_proposals=500
    ),
    roi=FastRCNNConfig(hidden=512, samples=128),
    cascade=CascadeConfig(stages=2),
    postprocess=Postprocess(min_score=0.01),
    preprocess=PreprocessConfig(short_side=640, long_side=856, mean=HALF, std=HALF),
)

_TORCHVISION = ModelSpec(
    backbone=BackboneConfig(library="torchvision"),
    rpn=RPNConfig(anchor_offset=0.0, round_anchors=True, strides_from_image=True),
    roi=FastRCNNConfig(aligned=False),
    preprocess=PreprocessConfig(short_side=800, long_side=1333, mean=IMAGENET_MEAN, std=IMAGENET_STD, antialias=False),
)

_DETECTRON2_RGB = ModelSpec(
    backbone=BackboneConfig(library="torchvision"),
    rpn=RPNConfig(anchor_offset=0.0),
    roi=FastRCNNConfig(sampling_ratio=0),
)

_DETECTRON2 = replace(
    _DETECTRON2_RGB,
    backbone=BackboneConfig(library="torchvision", stride_in_1x1=True),
    preprocess=PreprocessConfig(short_side=800, long_side=1333, mean=IMAGENET_MEAN, std=(1 / 255,) * 3),
)

PRESETS: dict[str, ModelSpec] = {
    "faster_rcnn_r50_fpn": ModelSpec(),
    "faster_rcnn_lite0_fpn": _LITE0,
    "cascade_rcnn_lite2_fpn": _LITE2_CASCADE,
    **{
        pattern.format(short): replace(spec, backbone=replace(spec.backbone, name=name))
        for pattern, spec in (
            ("torchvision_{}_fpn", _TORCHVISION),
            ("detectron2_{}_fpn", _DETECTRON2),
            ("detectron2_{}_fpn_rgb", _DETECTRON2_RGB),
        )
        for short, name in RESNETS.items()
    },
}
"""Name -> model: the paper's; a small and a better one for CPUs; those that other libraries' checkpoints are of."""


def preset(name: str) -> ModelSpec:
    """The model of a name.

    Raises:
        ConfigError: there is none; the nearest name is given.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no model named {name!r}: {did_you_mean(name, PRESETS, 'the models')}")
    return PRESETS[name]


def name_of(spec: ModelSpec) -> str:
    """The preset that builds the same network, whatever its images and its least score; else a short description."""
    for name, known in PRESETS.items():
        if replace(spec, preprocess=known.preprocess, postprocess=known.postprocess) == known:
            return name
    return str(spec)
