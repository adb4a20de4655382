"""A backbone as data: a network of timm or torchvision, and which of its parts are not trained."""

from __future__ import annotations

from dataclasses import dataclass

import torchvision
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter

from ..errors import ConfigError
from ..settings import did_you_mean
from .timm import timm
from .wrap import Backbone, wrap

LIBRARIES = ("timm", "torchvision")
TORCHVISION = ("resnet50", "resnet101")
STAGES = ("layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which network, and how it is built.

    Attributes:
        name: of the network in its library.
        library: `timm`, or `torchvision` for ResNet-50 and -101 with torchvision's names, as checkpoints of
            torchvision and detectron2 have them.
        frozen_stages: stages from the stem on that get no gradient; see `fpnkit.backbones.timm`.
        freeze_batch_norm: keep batch norms as they are, which small batches would spoil.
        strides: which maps to take; all from 4 to 32 for None. timm only.
        image_size_hw: height and width of the largest image, for a network that is built for one size. timm only.
        stride_in_1x1: stages stride in their first 1x1 convolution, as Caffe's ResNets do. torchvision only.
    Raises:
        ConfigError: an unknown library, a network that torchvision's side lacks, or an option of the other library.
    """

    name: str = "resnet50"
    library: str = "timm"
    frozen_stages: int = 1
    freeze_batch_norm: bool = True
    strides: tuple[int, ...] | None = None
    image_size_hw: tuple[int, int] | None = None
    stride_in_1x1: bool = False

    def __post_init__(self) -> None:
        if self.library not in LIBRARIES:
            hint = did_you_mean(self.library, LIBRARIES, "the libraries")
            raise ConfigError(f"there is no library of backbones named {self.library!r}: {hint}")
        if self.library == "timm" and self.stride_in_1x1:
            raise ConfigError("backbone.stride_in_1x1 is for backbone.library=torchvision: timm has no such ResNets")
        if self.library == "torchvision":
            if self.name not in TORCHVISION:
                hint = did_you_mean(self.name, TORCHVISION, "they")
                raise ConfigError(
                    f"backbone {self.name!r} is not among those of torchvision: {hint}; any other is of timm"
                )
            if self.strides is not None or self.image_size_hw is not None:
                raise ConfigError("backbone.strides and backbone.image_size_hw are for backbone.library=timm")
        if self.frozen_stages < 0:
            raise ConfigError(f"backbone.frozen_stages must be 0 or more, got {self.frozen_stages}")


def make_backbone(config: BackboneConfig, *, pretrained: bool = False) -> Backbone:
    """A backbone with random weights, or with timm's ImageNet weights.

    Args:
        config: which one.
        pretrained: let timm download its weights; the only way this function reaches the network.
    Raises:
        ConfigError: no such network, more frozen stages than it has, or `pretrained` for torchvision's.
    """
    if config.library == "torchvision":
        if pretrained:
            raise ConfigError(
                f"backbone {config.name} of torchvision has no weights to download here: start from a file of "
                "weights, or take the network of timm"
            )
        return _torchvision(config)
    return timm(
        config.name,
        pretrained=pretrained,
        strides=config.strides,
        image_size=config.image_size_hw,
        frozen_stages=config.frozen_stages,
        freeze_batch_norm=config.freeze_batch_norm,
    )


def _torchvision(config: BackboneConfig) -> Backbone:
    network = getattr(torchvision.models, config.name)(weights=None)
    if config.stride_in_1x1:
        for stage in (network.layer2, network.layer3, network.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, stage[0].conv1.stride
    body: nn.Module = IntermediateLayerGetter(network, {name: str(index) for index, name in enumerate(STAGES)})
    stages = config.frozen_stages
    if stages > len(STAGES):
        raise ConfigError(f"frozen_stages is {stages}, the backbone has {len(STAGES)} stages: pass 0 to {len(STAGES)}")
    frozen = [getattr(body, name) for name in ("conv1", "bn1", *STAGES[:stages])] if stages else []
    return wrap(body).freeze(frozen, batch_norm=config.freeze_batch_norm)
