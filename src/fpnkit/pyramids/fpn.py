"""The Feature Pyramid Network, arXiv:1612.03144, section 3, to be read beside the paper.

C5 ── 1x1 ─────────┬── 3x3 ── P5 ── subsample ── P6
                upsample
C4 ── 1x1 ──────── + ── 3x3 ── P4
                upsample
C3 ── 1x1 ──────── + ── 3x3 ── P3
                upsample
C2 ── 1x1 ──────── + ── 3x3 ── P2
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..structures import Features, LevelSpec
from .pyramid import Pyramid


class FPN(Pyramid):
    """Strong semantics at every scale from one backbone pass.

    Args:
        levels: the backbone's maps, finest first: `backbone.levels`.
        channels: d, the width of every pyramid level.
        extra_levels: levels above the top one by stride-2 subsampling; 1 gives the P6 of the RPN (section 4.1).
    Attributes:
        levels: the pyramid's own specs, P2..P5 (P6).
    Raises:
        ConfigError: no levels, not ordered from fine to coarse, or not to be counted on from (`c5` gives `p6`).
    Source: section 3: no non-linearity in these layers; nearest upsampling; element-wise addition.
    Deviation: upsampling goes to the lateral map's real size, not by a factor of 2, so that any input size works.
    """

    def __init__(self, levels: Sequence[LevelSpec], channels: int = 256, *, extra_levels: int = 1) -> None:
        super().__init__()
        strides = [level.stride for level in levels]
        if not strides or strides != sorted(set(strides)):
            raise ConfigError(f"FPN expects levels from fine to coarse, got strides {strides}: pass backbone.levels")
        if extra_levels < 0:
            raise ConfigError(f"FPN expects 0 or more extra_levels, got {extra_levels}")
        self.in_levels = tuple(levels)
        self.lateral = nn.ModuleDict({level.name: nn.Conv2d(level.channels, channels, 1) for level in levels})
        self.smooth = nn.ModuleDict({level.name: nn.Conv2d(channels, channels, 3, padding=1) for level in levels})
        self.levels = tuple(LevelSpec(_pyramid_name(level.name), level.stride, channels) for level in levels)
        for _ in range(extra_levels):
            self.levels += (_next_coarser(self.levels[-1]),)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, a=1)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, bottom_up: Features) -> dict[str, Tensor]:
        """Build the pyramid.

        Args:
            bottom_up: C2..C5 by name, (N, channels, H, W) each.
        Returns:
            P2..P5 (P6) by name, finest first, (N, d, H, W) with the size of their C.
        Raises:
            ShapeError: a level is missing or has other channels than its spec.
        """
        for level in self.in_levels:
            _require(bottom_up, level)

        top_down: Tensor | None = None
        merged: list[Tensor] = []
        for level in reversed(self.in_levels):
            lateral = self.lateral[level.name](bottom_up[level.name])
            top_down = lateral if top_down is None else lateral + upsample(top_down, like=lateral)
            merged.insert(0, top_down)

        smoothed = [self.smooth[level.name](each) for level, each in zip(self.in_levels, merged, strict=True)]
        while len(smoothed) < len(self.levels):
            smoothed.append(subsample(smoothed[-1]))
        return {level.name: each for level, each in zip(self.levels, smoothed, strict=True)}


def upsample(coarse: Tensor, *, like: Tensor) -> Tensor:
    """Nearest upsampling to the height and width of another map."""
    return F.interpolate(coarse, size=like.shape[-2:], mode="nearest")


def subsample(feature: Tensor) -> Tensor:
    """Every second cell in both directions: (N, C, H, W) -> (N, C, ceil(H/2), ceil(W/2))."""
    return feature[:, :, ::2, ::2]  # with max_pool2d an exported graph would serve odd sizes only, or even ones


def _require(bottom_up: Features, level: LevelSpec) -> None:
    if level.name not in bottom_up:
        raise ShapeError(f"FPN expects a map {level.name}, got {sorted(bottom_up)}: pass the backbone's whole output")
    channels = bottom_up[level.name].shape[1]
    if channels != level.channels:
        raise ShapeError(
            f"pyramid level {_pyramid_name(level.name)} expects {level.channels} channels, backbone level "
            f"{level.name} has {channels}: pass backbone.levels to FPN(...)"
        )


def _pyramid_name(name: str) -> str:
    return "p" + name[1:] if name[:1] == "c" else name


def _next_coarser(level: LevelSpec) -> LevelSpec:
    number = level.name[1:]
    if not number.isdecimal():
        raise ConfigError(
            f"FPN counts on from the top level and expects a name like c5, got {level.name!r}: "
            "name the level so, or pass extra_levels=0"
        )
    return LevelSpec(f"p{int(number) + 1}", level.stride * 2, level.channels)
