"""What stands between a backbone's map and the pyramid."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

CONNECTIONS = ("conv", "residual")


class ResidualBlock(nn.Module):
    """x + f(x) with f = ReLU, 1x1, ReLU, 3x3, ReLU, 1x1 at a quarter of the width; f starts at zero.

    Source: the bottleneck of arXiv:1512.03385, in the pre-activation order of arXiv:1603.05027, so that a map leaves
    it without a non-linearity. The paper tried "multi-layer residual blocks as the connections" (section 3) and does
    not say which.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(1, channels // 4)
        self.reduce = nn.Conv2d(channels, narrow, 1)
        self.conv = nn.Conv2d(narrow, narrow, 3, padding=1)
        self.expand = nn.Conv2d(narrow, channels, 1)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, feature: Tensor) -> Tensor:
        """(N, d, H, W) -> (N, d, H, W)."""
        hidden = self.conv(torch.relu(self.reduce(torch.relu(feature))))
        return feature + self.gain * self.expand(torch.relu(hidden))


def lateral(
    in_channels: int, channels: int, connection: str = "conv", norm: Callable[[int], nn.Module] | None = None
) -> nn.Module:
    """The 1x1 that brings a map to d channels, with a residual block behind it if asked for."""
    layers = [nn.Conv2d(in_channels, channels, 1, bias=norm is None)]
    return _sequence(*layers, norm and norm(channels), ResidualBlock(channels) if connection == "residual" else None)


def smoothing(channels: int, norm: Callable[[int], nn.Module] | None = None) -> nn.Module:
    """The 3x3 on a merged map, which lessens the aliasing of the upsampling."""
    return _sequence(nn.Conv2d(channels, channels, 3, padding=1, bias=norm is None), norm and norm(channels))


def _sequence(*layers: nn.Module | None) -> nn.Module:
    kept = [layer for layer in layers if layer is not None]
    return kept[0] if len(kept) == 1 else nn.Sequential(*kept)
