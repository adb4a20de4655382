"""The contract of every pyramid: level specs in, level specs out."""

from __future__ import annotations

from torch import Tensor, nn

from ..structures import Features, LevelSpec


class Pyramid(nn.Module):
    """Turns bottom-up maps into the maps that heads read.

    Attributes:
        in_levels: the maps it expects, finest first.
        levels: the maps it gives, finest first; strides here are what anchors and RoIAlign go by.
    """

    in_levels: tuple[LevelSpec, ...]
    levels: tuple[LevelSpec, ...]

    def forward(self, bottom_up: Features) -> dict[str, Tensor]:
        """Level name -> (N, C, H, W), for every level of `levels` in order."""
        raise NotImplementedError
