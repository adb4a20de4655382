"""Maps of several strides from a transformer that has one."""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from .adapters import Adapter, as_maps

FINEST = 4
"""Stride of C2."""
LEVELS = 4


class SimplePyramid(Adapter):
    """The simple feature pyramid of plain vision transformers: all levels from the last map.

    For stride 16: 4 by two transposed convolutions (2x2, stride 2) with a norm and GELU between, 8 by one, 16 as it
    is, 32 by max pooling. Each transposed convolution halves the channels. Other patch sizes get the strides that
    this gives in whole pixels: see `pyramid_strides`.

    Args:
        network: (N, 3, H, W) -> maps; the last is taken, (N, channels, H/stride, W/stride).
        channels: of that map.
        stride: of that map.
        strides: of the levels, finest first; each is `stride` times a power of two.
    Source: arXiv:2203.16527, section 3. Deviation: pooling rounds up, so that a single cell keeps one.
    """

    def __init__(self, network: nn.Module, *, channels: int, stride: int, strides: Sequence[int]) -> None:
        super().__init__(network)
        self.levels = nn.ModuleList(_resample(channels, stride, each) for each in strides)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> maps, each (N, C, about H/stride, about W/stride)."""
        last = as_maps(self.network(images))[-1]
        return [level(last) for level in self.levels]


def pyramid_strides(stride: int) -> tuple[int, ...]:
    """Four whole strides from 4 on, a stride times powers of two: 16 -> (4, 8, 16, 32), 14 -> (7, 14, 28, 56)."""
    finest = stride // (stride & -stride)  # its odd part: the finest that is whole
    while finest < FINEST:
        finest *= 2
    return tuple(finest << k for k in range(LEVELS))


def _resample(channels: int, stride: int, wanted: int) -> nn.Module:
    steps: list[nn.Module] = []
    while stride > wanted:
        if steps:
            steps += [LayerNorm2d(channels), nn.GELU()]
        steps.append(nn.ConvTranspose2d(channels, max(channels // 2, 1), kernel_size=2, stride=2))
        channels, stride = max(channels // 2, 1), stride // 2
    while stride < wanted:
        steps.append(nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True))
        stride *= 2
    return nn.Sequential(*steps)
