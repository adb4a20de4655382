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

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..structures import Features, LevelSpec
from .connections import CONNECTIONS, lateral, smoothing
from .extra import ExtraLevels
from .pyramid import Pyramid, initialise, pyramid_name


class FPN(Pyramid):
    """Strong semantics at every scale from one backbone pass: Figure 1 (d), Table 1 (c).

    Args:
        levels: the backbone's maps, finest first: `backbone.levels`.
        channels: d, the width of every pyramid level.
        connection: `conv` for the plain 1x1, `residual` for a residual block behind it (section 3).
        norm: makes a norm for a width, behind each 1x1 and each 3x3: `nn.BatchNorm2d`; the paper has none.
        extra_levels: levels above the top one; 1 gives the P6 of the RPN (section 4.1).
        extra: how they are made, see `ExtraLevels`.
    Attributes:
        levels: the pyramid's own specs, P2..P5 (P6).
    Raises:
        ConfigError: no levels, not ordered from fine to coarse, or an unknown option.
    Source: section 3: no non-linearity in these layers; nearest upsampling; element-wise addition.
    Deviation: upsampling goes to the lateral map's real size, not by a factor of 2, so that any input size works.
    """

    def __init__(
        self,
        levels: Sequence[LevelSpec],
        channels: int = 256,
        *,
        connection: str = "conv",
        norm: Callable[[int], nn.Module] | None = None,
        extra_levels: int = 1,
        extra: str = "subsample",
    ) -> None:
        super().__init__(levels, channels)
        if connection not in CONNECTIONS:
            raise ConfigError(f"connection must be one of {', '.join(CONNECTIONS)}, got {connection!r}")
        self.lateral = nn.ModuleDict(
            {level.name: lateral(level.channels, channels, connection, norm) for level in levels}
        )
        self.smooth = nn.ModuleDict({level.name: smoothing(channels, norm) for level in levels})
        own = tuple(replace(level, name=pyramid_name(level.name), channels=channels) for level in levels)
        self.extra = ExtraLevels(own[-1], levels[-1].channels, extra_levels, extra)
        self.levels = own + self.extra.levels
        initialise(self)

    def forward(self, bottom_up: Features) -> dict[str, Tensor]:
        """Build the pyramid.

        Args:
            bottom_up: C2..C5 by name, (N, channels, H, W) each.
        Returns:
            P2..P5 (P6) by name, finest first, (N, d, H, W) with the size of their C.
        Raises:
            ShapeError: a level is missing or has other channels than its spec.
        """
        maps = self.checked(bottom_up)
        laterals = [layer(each) for layer, each in zip(self.lateral.values(), maps, strict=True)]
        smoothed = [layer(each) for layer, each in zip(self.smooth.values(), top_down(laterals), strict=True)]
        smoothed += self.extra(maps[-1], smoothed[-1])
        return {level.name: each for level, each in zip(self.levels, smoothed, strict=True)}


def top_down(laterals: Sequence[Tensor]) -> list[Tensor]:
    """The top-down pathway: each map plus the upsampled one above it, finest first."""
    merged = [laterals[-1]]
    for finer in reversed(laterals[:-1]):
        merged.insert(0, finer + resize(merged[0], like=finer))
    return merged


def resize(feature: Tensor, *, like: Tensor) -> Tensor:
    """Nearest-neighbour resizing to the height and width of another map."""
    return F.interpolate(feature, size=like.shape[-2:], mode="nearest")
