"""What every network on a pyramid has in common: parts that fit, and features."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import ConfigError
from ..heads import RoIHead, RPNHead
from ..outputs import OutputSpec
from ..pyramids import Pyramid
from ..structures import Features, LevelSpec


class PyramidNetwork(nn.Module):
    """A backbone and a pyramid, for heads to read; what the heads make of them is up to the derived class.

    Attributes:
        backbone, pyramid: the parts.
        inputs: names of what `forward` takes.
        outputs: what `forward` returns under each name, beside `valid`.
    """

    backbone: Backbone
    pyramid: Pyramid
    inputs: tuple[str, ...] = ("images", "sizes")
    outputs: tuple[OutputSpec, ...]

    def set_parts(self, backbone: Backbone, pyramid: Pyramid, heads: Sequence[RPNHead | RoIHead]) -> None:
        """Take the parts.

        Args:
            backbone: gives C2..C5.
            pyramid: takes `backbone.levels`, gives P2..P6.
            heads: what reads the pyramid.
        Raises:
            ConfigError: a part was built for other levels than it gets.
        """
        if pyramid.in_levels != backbone.levels:
            raise ConfigError(
                f"the pyramid expects {_describe(pyramid.in_levels)}, the backbone gives "
                f"{_describe(backbone.levels)}: build the pyramid from backbone.levels"
            )
        for head in heads:
            unknown = [level for level in head.levels if level not in pyramid.levels]
            if unknown:
                raise ConfigError(
                    f"{type(head).__name__} reads {_describe(unknown)}, the pyramid gives "
                    f"{_describe(pyramid.levels)}: build the head from pyramid.levels"
                )
        self.backbone = backbone
        self.pyramid = pyramid

    def features(self, images: Tensor) -> Features:
        """(N, 3, H, W) -> the pyramid, level name -> map."""
        return self.pyramid.features(self.backbone, images)


def padded_hw(images: Tensor) -> tuple[int, int]:
    """Height and width of a padded batch (N, 3, H, W)."""
    return images.shape[-2], images.shape[-1]


def _describe(levels: Sequence[LevelSpec]) -> str:
    return ", ".join(f"{level.name} (stride {level.stride}, {level.channels} channels)" for level in levels)
