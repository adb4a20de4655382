"""Levels above the backbone's coarsest one: P6, P7."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..structures import LevelSpec

EXTRAS = ("subsample", "conv_c5", "conv_p5")


class ExtraLevels(nn.Module):
    """Makes further levels, each with twice the stride of the one before.

    Args:
        top: the pyramid's coarsest level so far, P5.
        source_channels: channels of C5.
        count: how many.
        how: `subsample` takes every second cell of P5, the paper's P6 (section 4.1); `conv_c5` and `conv_p5` are
            RetinaNet's 3x3 convolutions of stride 2 on C5 or P5, with ReLU between (arXiv:1708.02002, section 4).
    Attributes:
        levels: their specs.
    Raises:
        ConfigError: another `how`, or as `coarser`.
    """

    def __init__(self, top: LevelSpec, source_channels: int, count: int, how: str) -> None:
        super().__init__()
        if how not in EXTRAS:
            raise ConfigError(f"extra must be one of {', '.join(EXTRAS)}, got {how!r}")
        self.how = how
        self.levels = coarser(top, count)
        widths = [source_channels if how == "conv_c5" else top.channels, *[top.channels] * count]
        self.conv = nn.ModuleDict(
            {
                level.name: nn.Conv2d(width, level.channels, 3, stride=2, padding=1)
                for level, width in zip(self.levels, widths, strict=False)
                if how != "subsample"
            }
        )

    def forward(self, c5: Tensor, p5: Tensor) -> list[Tensor]:
        """The maps of `levels`, finest first."""
        made = [c5 if self.how == "conv_c5" else p5]
        for number, level in enumerate(self.levels):
            if self.how == "subsample":
                made.append(subsample(made[-1]))
            else:
                made.append(self.conv[level.name](torch.relu(made[-1]) if number else made[-1]))
        return made[1:]


def coarser(top: LevelSpec, count: int) -> tuple[LevelSpec, ...]:
    """Specs of the levels above one, by doubling its stride.

    Raises:
        ConfigError: a negative count, or a level that cannot be counted on from (`c5` gives `p6`).
    """
    if count < 0:
        raise ConfigError(f"a pyramid expects 0 or more extra_levels, got {count}")
    if not count:
        return ()
    if not top.name[1:].isdecimal():
        raise ConfigError(
            f"a pyramid counts on from its top level and expects a name like c5, got {top.name!r}: "
            "name the level so, or pass extra_levels=0"
        )
    first = int(top.name[1:]) + 1
    return tuple(LevelSpec(f"p{first + i}", top.stride * 2 ** (i + 1), top.channels) for i in range(count))


def all_strides(levels: Sequence[LevelSpec], extra_levels: int) -> tuple[int, ...]:
    """Strides of a pyramid with so many extra levels: what a single map that stands for all of it serves."""
    return tuple(level.stride for level in (*levels, *coarser(levels[-1], extra_levels)))


def subsample(feature: Tensor) -> Tensor:
    """Every second cell in both directions: (N, C, H, W) -> (N, C, ceil(H/2), ceil(W/2))."""
    # With max_pool2d an exported graph would serve odd sizes only, or even ones; with gaps between its cells in memory
    # a compiled one would be compiled again for other sizes.
    return feature[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last)
