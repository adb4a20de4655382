"""The featurized image pyramid: one backbone run for each scale of the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..ops.roi import level_numbers
from ..structures import Features, LevelSpec
from .baselines import find_level
from .connections import lateral
from .pyramid import Pyramid, initialise


class ImagePyramid(Pyramid):
    """Predictions on the features of each image scale, by the same layers at every scale: Figure 1 (a).

    What a network sees at half the size has twice the stride in the original's pixels: so the scales are levels.

    Args:
        levels: the backbone's maps, finest first.
        channels: d.
        scales: factors on the image, in any order.
        level: the map that is taken at every scale, `c4`; by default the coarsest.
    Attributes:
        scales: coarsest last. A scale is moved to the nearest one that gives a whole stride: C4 at 0.75 would have
            stride 21.3, so 16/21 = 0.762 is taken.
        levels: one spec a scale.
    Raises:
        ConfigError: no scale, one that is not positive, or two that give the same stride.
    """

    def __init__(
        self,
        levels: Sequence[LevelSpec],
        channels: int = 256,
        *,
        scales: Sequence[float] = (2.0, 1.0, 0.5),
        level: str | None = None,
    ) -> None:
        super().__init__(levels, channels)
        self.taken = find_level(self.in_levels, level)
        if not scales or not all(0 < scale < math.inf for scale in scales):
            raise ConfigError(f"ImagePyramid expects scales above 0, got {tuple(scales)}")
        strides = sorted(max(1, round(self.taken.stride / scale)) for scale in scales)
        if len(set(strides)) < len(strides):
            raise ConfigError(
                f"ImagePyramid expects scales of different strides, but {tuple(scales)} of {self.taken.name} "
                f"(stride {self.taken.stride}) give {strides}: leave one out"
            )
        self.scales = tuple(self.taken.stride / stride for stride in strides)
        self.project = lateral(self.taken.channels, channels)
        self.levels = tuple(
            LevelSpec(f"p{number}", stride, channels)
            for number, stride in zip(level_numbers(strides), strides, strict=True)
        )
        initialise(self)

    def features(self, backbone: Callable[[Tensor], Features], images: Tensor) -> dict[str, Tensor]:
        """Run the backbone once a scale: (N, 3, H, W) -> level name -> (N, d, H/stride, W/stride)."""
        made: dict[str, Tensor] = {}
        for level in self.levels:
            image = scaled(images, self.taken.stride, level.stride)
            made[level.name] = self(backbone(image))[self.taken.name]
        return made

    def forward(self, bottom_up: Features) -> dict[str, Tensor]:
        """The maps of one scale -> the projected map alone, under its own name; `features` puts the scales together."""
        self.checked(bottom_up)
        return {self.taken.name: self.project(bottom_up[self.taken.name])}


def scaled(images: Tensor, stride: int, wanted_stride: int) -> Tensor:
    """Resize by stride / wanted_stride, sides rounded up: (N, C, H, W) -> (N, C, H', W')."""
    if stride == wanted_stride:
        return images
    size = [-(-side * stride // wanted_stride) for side in images.shape[-2:]]
    return F.interpolate(images, size=size, mode="bilinear", antialias=stride < wanted_stride)
