"""The contract of every pyramid: level specs in, level specs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..structures import Features, LevelSpec


class Pyramid(nn.Module):
    """Turns bottom-up maps into the maps that heads read.

    Args:
        levels: the backbone's maps, finest first: `backbone.levels`.
        channels: d, the width of every level that is given.
    Attributes:
        in_levels: the maps it expects, finest first.
        levels: the maps it gives, finest first; strides here are what anchors and RoIAlign go by.
    Raises:
        ConfigError: no levels, not ordered from fine to coarse, or no channels.
    """

    levels: tuple[LevelSpec, ...]

    def __init__(self, levels: Sequence[LevelSpec], channels: int) -> None:
        super().__init__()
        name, strides = type(self).__name__, [level.stride for level in levels]
        if not strides or strides != sorted(set(strides)):
            raise ConfigError(f"{name} expects levels from fine to coarse, got strides {strides}: pass backbone.levels")
        if channels < 1:
            raise ConfigError(f"{name} expects channels of 1 or more, got {channels}")
        self.in_levels = tuple(levels)

    def forward(self, bottom_up: Features) -> dict[str, Tensor]:
        """Level name -> (N, C, H, W), for every level of `levels` in order."""
        raise NotImplementedError

    def features(self, backbone: Callable[[Tensor], Features], images: Tensor) -> dict[str, Tensor]:
        """The pyramid of images: (N, 3, H, W) -> level name -> (N, d, H/stride, W/stride)."""
        return self(backbone(images))

    def checked(self, bottom_up: Features) -> list[Tensor]:
        """The maps in the order of `in_levels`.

        Raises:
            ShapeError: a level is missing or has other channels than its spec.
        """
        return [self._checked(bottom_up, level) for level in self.in_levels]

    def _checked(self, bottom_up: Features, level: LevelSpec) -> Tensor:
        name = type(self).__name__
        if level.name not in bottom_up:
            raise ShapeError(
                f"{name} expects a map {level.name}, got {sorted(bottom_up)}: pass the backbone's whole output"
            )
        feature = bottom_up[level.name]
        if feature.shape[1] != level.channels:
            raise ShapeError(
                f"pyramid level {pyramid_name(level.name)} expects {level.channels} channels, backbone level "
                f"{level.name} has {feature.shape[1]}: pass backbone.levels to {name}(...)"
            )
        return feature


def pyramid_name(name: str) -> str:
    """c4 -> p4; other names stay."""
    return "p" + name[1:] if name[:1] == "c" else name


def initialise(module: nn.Module) -> None:
    """The start of every FPN layer: weights uniform within sqrt(3 / inputs), no bias."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
