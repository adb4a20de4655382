"""The weighted bi-directional pyramid, BiFPN, of EfficientDet, arXiv:1911.09070, section 3.

One round, to be repeated; every "+" is a fast normalised fusion, a swish and a separable convolution:

C5 ──────────────┬──── + ── P5
              upsample │ ╲ pool
C4 ────┬──────── + ─── + ── P4       the middle column is the top-down path, the right one goes bottom-up again;
       └───────────────┘ ╲ pool      the input of a level also reaches its output directly
C3 ───────────── + ──────── P3       ends have one input less, and the node that would have a single one is left out
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..structures import Features, LevelSpec
from .extra import coarser
from .fpn import resize
from .pyramid import Pyramid, pyramid_name

FUSION_EPS = 1e-4


class BiFPN(Pyramid):
    """Top-down and bottom-up paths, repeated, with learnt weights on their edges.

    Args:
        levels: the backbone's maps, finest first; EfficientDet takes C3..C5.
        channels: d; EfficientDet-D0 has 64.
        repeats: rounds; EfficientDet-D0 has 3.
        extra_levels: levels above the top one by 3x3 max pooling, the first from a projected C5; EfficientDet has 2.
    Attributes:
        levels: the pyramid's own specs.
    Raises:
        ConfigError: fewer than two levels in all, or no round.
    Source: section 3.2 and 3.3; section 5 for batch norm and swish. Equal to the effdet package's with its weights.
    """

    def __init__(
        self, levels: Sequence[LevelSpec], channels: int = 64, *, repeats: int = 3, extra_levels: int = 1
    ) -> None:
        super().__init__(levels, channels)
        own = tuple(LevelSpec(pyramid_name(level.name), level.stride, channels) for level in levels)
        self.levels = own + coarser(own[-1], extra_levels)
        if len(self.levels) < 2 or repeats < 1:
            raise ConfigError(
                f"BiFPN expects two levels or more and repeats of 1 or more, got {len(self.levels)} and {repeats}"
            )
        self.extra = _project(levels[-1].channels, channels) if extra_levels else nn.Identity()
        strides = [level.stride for level in self.levels]
        widths = [level.channels for level in levels] + [channels] * extra_levels
        self.rounds = nn.ModuleList()
        for _ in range(repeats):
            self.rounds.append(BiFPNRound(strides, widths, channels))
            widths = [channels] * len(strides)

    def forward(self, bottom_up: Features) -> dict[str, Tensor]:
        """C3..C5 by name -> P3..P7 by name, finest first, (N, d, H, W)."""
        maps = self.checked(bottom_up)
        if len(self.levels) > len(maps):
            maps.append(pool(self.extra(maps[-1]), 2))
        while len(maps) < len(self.levels):
            maps.append(pool(maps[-1], 2))
        for one in self.rounds:
            maps = one(maps)
        return {level.name: each for level, each in zip(self.levels, maps, strict=True)}


class BiFPNRound(nn.Module):
    """One top-down and one bottom-up path.

    Args:
        strides: of all levels, finest first.
        widths: channels of each input map; where it is not d, every edge from it begins with its own projection.
        channels: d.
    """

    def __init__(self, strides: Sequence[int], widths: Sequence[int], channels: int) -> None:
        super().__init__()
        top = len(strides) - 1
        self.steps = [max(1, round(coarse / fine)) for fine, coarse in pairwise(strides)]
        self.down = nn.ModuleList(
            FusionNode([widths[i], widths[i + 1] if i + 1 == top else channels], channels) for i in range(top)
        )
        self.up = nn.ModuleList(
            FusionNode([widths[i], channels, channels] if i < top else [widths[i], channels], channels)
            for i in range(1, top + 1)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps of all levels, finest first -> as many of width d."""
        middle = [maps[-1]]
        for node, finer in zip(reversed(self.down), reversed(maps[:-1]), strict=True):
            middle.insert(0, node(finer, middle[0]))
        made = [middle[0]]
        for i, (node, step) in enumerate(zip(self.up, self.steps, strict=True), start=1):
            inputs = [maps[i], middle[i]] if i < len(self.steps) else [maps[i]]
            made.append(node(*inputs, pool(made[-1], step)))
        return made


class FusionNode(nn.Module):
    """Brings maps to the first one's size, adds them with learnt weights, then swish and a separable convolution.

    Args:
        widths: channels of each input.
        channels: d.
    Source: eq. of "fast normalized fusion" in section 3.3: w_i = relu(w_i) / (eps + sum of relu(w_j)).
    """

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(_project(width, channels) for width in widths)
        self.weights = nn.Parameter(torch.ones(len(widths)))
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = _norm(channels)
        nn.init.xavier_uniform_(self.depthwise.weight)
        nn.init.xavier_uniform_(self.pointwise.weight)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Maps of any sizes -> (N, d, H, W) of the first one's size."""
        weights = torch.relu(self.weights)
        weights = weights / (FUSION_EPS + weights.sum())
        projected = [layer(each) for layer, each in zip(self.project, inputs, strict=True)]
        fused = projected[0] * weights[0]
        for each, weight in zip(projected[1:], weights[1:], strict=True):
            fused = fused + resize(each, like=fused) * weight
        return self.norm(self.pointwise(self.depthwise(F.silu(fused))))


def pool(feature: Tensor, step: int) -> Tensor:
    """Max pooling to 1/step of the size, rounded up."""
    reach = step // 2
    dense = F.max_pool2d(feature, 2 * reach + 1, stride=1, padding=reach)
    return dense[:, :, ::step, ::step]  # a strided max_pool2d takes torch.export minutes, for its guards on the size


def _project(in_channels: int, channels: int) -> nn.Module:
    """To d channels, with a norm; nothing where it has them."""
    if in_channels == channels:
        return nn.Identity()
    conv = nn.Conv2d(in_channels, channels, 1, bias=False)
    nn.init.xavier_uniform_(conv.weight)
    return nn.Sequential(conv, _norm(channels))


def _norm(channels: int) -> nn.BatchNorm2d:
    """As in EfficientDet but for the momentum. Its 0.01 needs thousands of steps: maps have variances around 0.01 here,
    and after 400 steps 0.018 of the initial variance 1 is left, which makes every map in inference too small.
    """
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03)
