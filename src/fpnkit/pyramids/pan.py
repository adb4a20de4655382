"""Path aggregation, arXiv:1803.01534, section 3.1: an FPN with a second, bottom-up path behind it.

P5 ──────────── + ── 3x3 ── N5 ── subsample ── N6
            3x3 stride 2
P4 ──────────── + ── 3x3 ── N4
            3x3 stride 2
P3 ──────────── + ── 3x3 ── N3
            3x3 stride 2
P2 ──────────────────────── N2
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..structures import Features, LevelSpec
from .extra import ExtraLevels
from .fpn import FPN, resize
from .pyramid import Pyramid, initialise


class PAN(Pyramid):
    """A short way from the fine maps to the coarse levels, which localise better for it.

    Args:
        levels: the backbone's maps, finest first: `backbone.levels`.
        channels: d.
        extra_levels: levels above the top one, by subsampling.
    Attributes:
        levels: as an FPN's: they carry its names, p2..p5 (p6).
    Source: section 3.1; a ReLU follows each convolution of the bottom-up path, as the paper says.
    """

    def __init__(self, levels: Sequence[LevelSpec], channels: int = 256, *, extra_levels: int = 1) -> None:
        super().__init__(levels, channels)
        self.fpn = FPN(levels, channels, extra_levels=0)
        own = self.fpn.levels
        self.down = nn.ModuleDict(
            {coarse.name: _step(channels, round(coarse.stride / fine.stride)) for fine, coarse in pairwise(own)}
        )
        self.merge = nn.ModuleDict({level.name: _step(channels, 1) for level in own[1:]})
        self.extra = ExtraLevels(own[-1], channels, extra_levels, "subsample")
        self.levels = own + self.extra.levels
        initialise(self)

    def forward(self, bottom_up: Features) -> dict[str, Tensor]:
        """C2..C5 by name -> N2..N5 (N6) under the names p2..p5 (p6), (N, d, H, W)."""
        self.checked(bottom_up)
        pyramid = self.fpn(bottom_up)
        made = [pyramid[self.levels[0].name]]
        for name, down in self.down.items():
            lowered = torch.relu(down(made[-1]))
            made.append(torch.relu(self.merge[name](pyramid[name] + resize(lowered, like=pyramid[name]))))
        made += self.extra(made[-1], made[-1])
        return {level.name: each for level, each in zip(self.levels, made, strict=True)}


def _step(channels: int, stride: int) -> nn.Conv2d:
    reach = max(1, stride // 2)  # wide enough to read every cell, whatever the ratio of the strides
    return nn.Conv2d(channels, channels, 2 * reach + 1, stride=max(1, stride), padding=reach)
