"""A model changed by a few words: another backbone, pyramid, width or head."""

from __future__ import annotations

from dataclasses import replace

from ..backbones import BackboneConfig
from ..data.pixels import IMAGENET_MEAN, IMAGENET_STD
from ..errors import ConfigError
from ..heads import CascadeConfig, FastRCNNConfig
from ..pyramids import PyramidConfig
from ..settings import did_you_mean
from .spec import ModelSpec

HEADS = ("fast_rcnn", "cascade")


def specialised(
    spec: ModelSpec,
    *,
    backbone: str | None = None,
    pyramid: str | None = None,
    channels: int | None = None,
    head: str | None = None,
) -> ModelSpec:
    """A spec with other parts; what is None stays.

    Args:
        spec: the model to start from.
        backbone: a network of timm. Images are normalised as it was trained, and its first stage gets no gradient.
        pyramid: a key of `fpnkit.pyramids.PYRAMIDS`, with the defaults of its own options.
        channels: d, the width of the pyramid.
        head: `fast_rcnn` for one RoI head, `cascade` for several in a row.
    Raises:
        ConfigError: an unknown name; the nearest is given.
    """
    if backbone is not None:
        spec = _with_backbone(spec, backbone)
    if pyramid is not None and pyramid != spec.pyramid.name:
        spec = replace(spec, pyramid=PyramidConfig(name=pyramid, channels=spec.pyramid.channels))
    if channels is not None:
        spec = replace(spec, pyramid=replace(spec.pyramid, channels=channels))
    if head is not None:
        spec = _with_head(spec, head)
    return spec


def normalisation(backbone: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation, RGB in 0..1, of the images that a timm network was trained on; ImageNet's if unknown.

    Raises:
        ConfigError: timm has no such network.
    """
    import timm

    _require_known(backbone)
    known = timm.get_pretrained_cfg(backbone)
    if known is None or len(known.mean) != 3:
        return IMAGENET_MEAN, IMAGENET_STD
    (r, g, b), (std_r, std_g, std_b) = known.mean, known.std
    return (r, g, b), (std_r, std_g, std_b)


def _with_backbone(spec: ModelSpec, name: str) -> ModelSpec:
    if spec.backbone.library == "timm" and spec.backbone.name == name:
        return spec
    mean, std = normalisation(name)
    preprocess = replace(spec.preprocess, mean=mean, std=std)
    return replace(spec, backbone=BackboneConfig(name=name), preprocess=preprocess)


def _with_head(spec: ModelSpec, head: str) -> ModelSpec:
    if head not in HEADS:
        raise ConfigError(f"there is no head named {head!r}: {did_you_mean(head, HEADS, 'the heads')}")
    cascade = (spec.cascade or CascadeConfig()) if head == "cascade" else None
    return replace(spec, roi=spec.roi or FastRCNNConfig(), cascade=cascade)


def _require_known(backbone: str) -> None:
    import timm

    known = timm.list_models()
    if backbone.split(".")[0] not in known:
        raise ConfigError(
            f"timm has no model named {backbone!r}: {did_you_mean(backbone.split('.')[0], known, 'its models')}"
        )
