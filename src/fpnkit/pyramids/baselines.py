"""What the paper compares the FPN with: Figure 1 (b) and (c), Table 1 (b), (d), (e), (f).

Each differs from the FPN in one thing, and has the FPN's width, smoothing and levels otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from ..errors import ConfigError
from ..structures import Features, LevelSpec
from .connections import lateral, smoothing
from .extra import ExtraLevels, all_strides
from .fpn import resize, top_down
from .pyramid import Pyramid, initialise, pyramid_name


class SingleMap(Pyramid):
    """One map of the backbone alone, projected to d channels: Figure 1 (b), Table 1 (a) with C4, (b) with C5.

    Args:
        levels: the backbone's maps, finest first.
        channels: d.
        level: the map to take, `c4`; by default the coarsest.
        extra_levels: how far above the coarsest map the anchors go; with the default it gets the five anchor sizes
            of an FPN with P6.
    Attributes:
        levels: one spec, that serves the strides of all levels.
    Raises:
        ConfigError: no such level.
    """

    def __init__(
        self, levels: Sequence[LevelSpec], channels: int = 256, *, level: str | None = None, extra_levels: int = 1
    ) -> None:
        super().__init__(levels, channels)
        self.taken = find_level(self.in_levels, level)
        self.project = lateral(self.taken.channels, channels)
        serves = all_strides(levels, extra_levels)
        self.levels = (LevelSpec(pyramid_name(self.taken.name), self.taken.stride, channels, serves),)
        initialise(self)

    def forward(self, bottom_up: Features) -> dict[str, Tensor]:
        """C2..C5 by name -> one map (N, d, H, W)."""
        self.checked(bottom_up)
        return {self.levels[0].name: self.project(bottom_up[self.taken.name])}


class _FullSize(Pyramid):
    """P2..P6 with the FPN's smoothing and subsampled extra levels; what is smoothed is left to others."""

    def __init__(self, levels: Sequence[LevelSpec], channels: int = 256, *, extra_levels: int = 1) -> None:
        super().__init__(levels, channels)
        self.smooth = nn.ModuleDict({level.name: smoothing(channels) for level in levels})
        own = tuple(replace(level, name=pyramid_name(level.name), channels=channels) for level in levels)
        self.extra = ExtraLevels(own[-1], levels[-1].channels, extra_levels, "subsample")
        self.levels = own + self.extra.levels

    def _smoothed(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        smoothed = [layer(each) for layer, each in zip(self.smooth.values(), maps, strict=True)]
        smoothed += self.extra(maps[-1], smoothed[-1])
        return {level.name: each for level, each in zip(self.levels, smoothed, strict=True)}


class FeatureHierarchy(_FullSize):
    """The backbone's own maps, each projected and smoothed, without a top-down path: Figure 1 (c), Table 1 (d).

    Args:
        levels, channels, extra_levels: as for `FPN`.
    """

    def __init__(self, levels: Sequence[LevelSpec], channels: int = 256, *, extra_levels: int = 1) -> None:
        super().__init__(levels, channels, extra_levels=extra_levels)
        self.lateral = nn.ModuleDict({level.name: lateral(level.channels, channels) for level in levels})
        initialise(self)

    def forward(self, bottom_up: Features) -> dict[str, Tensor]:
        """C2..C5 by name -> P2..P6 by name, (N, d, H, W)."""
        maps = self.checked(bottom_up)
        return self._smoothed([layer(each) for layer, each in zip(self.lateral.values(), maps, strict=True)])


class TopDownOnly(_FullSize):
    """The coarsest map, upsampled step by step and smoothed, without laterals: Table 1 (e).

    Args:
        levels, channels, extra_levels: as for `FPN`.
    """

    def __init__(self, levels: Sequence[LevelSpec], channels: int = 256, *, extra_levels: int = 1) -> None:
        super().__init__(levels, channels, extra_levels=extra_levels)
        self.project = lateral(levels[-1].channels, channels)
        initialise(self)

    def forward(self, bottom_up: Features) -> dict[str, Tensor]:
        """C2..C5 by name, of which only C5 is looked at -> P2..P6 by name, (N, d, H, W)."""
        maps = self.checked(bottom_up)
        upsampled = [self.project(maps[-1])]
        for finer in reversed(maps[:-1]):
            upsampled.insert(0, resize(upsampled[0], like=finer))
        return self._smoothed(upsampled)


class FinestLevel(Pyramid):
    """Top-down path and laterals, but only P2 is given, with the anchors of all levels: Table 1 (f).

    The way of U-Net (arXiv:1505.04597) and SharpMask (arXiv:1603.08695).

    Args:
        levels, channels, extra_levels: as for `FPN`.
    Attributes:
        levels: one spec, that serves the strides of all levels.
    """

    def __init__(self, levels: Sequence[LevelSpec], channels: int = 256, *, extra_levels: int = 1) -> None:
        super().__init__(levels, channels)
        self.lateral = nn.ModuleDict({level.name: lateral(level.channels, channels) for level in levels})
        self.smooth = smoothing(channels)
        finest, serves = levels[0], all_strides(levels, extra_levels)
        self.levels = (LevelSpec(pyramid_name(finest.name), finest.stride, channels, serves),)
        initialise(self)

    def forward(self, bottom_up: Features) -> dict[str, Tensor]:
        """C2..C5 by name -> P2 alone, (N, d, H, W)."""
        maps = self.checked(bottom_up)
        laterals = [layer(each) for layer, each in zip(self.lateral.values(), maps, strict=True)]
        return {self.levels[0].name: self.smooth(top_down(laterals)[0])}


def find_level(levels: Sequence[LevelSpec], name: str | None) -> LevelSpec:
    """The level of a name, by default the coarsest.

    Raises:
        ConfigError: there is none of that name.
    """
    found = {level.name: level for level in levels}
    if name is not None and name not in found:
        raise ConfigError(f"there is no level {name!r}: the backbone gives {', '.join(found)}")
    return found[name] if name is not None else levels[-1]
