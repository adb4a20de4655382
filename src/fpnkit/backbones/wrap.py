"""Give any module that returns maps the one contract of a backbone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..ops.roi import level_numbers
from ..structures import LevelSpec
from .adapters import ChannelsFirst, as_maps

PROBE_SIZE = 256
"""Side of the blank image whose maps tell the strides: divisible by every usual stride."""


class Backbone(nn.Module):
    """A bottom-up pathway with a published contract.

    Attributes:
        levels: what each map promises, finest first; `forward` returns maps of these names in this order.
        body: the wrapped network.
    """

    def __init__(self, body: nn.Module, levels: Sequence[LevelSpec]) -> None:
        super().__init__()
        self.body = body
        self.levels = tuple(levels)
        self._frozen: list[nn.Module] = []

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) -> level name -> (N, channels, about H/stride, about W/stride)."""
        maps = as_maps(self.body(images))
        return {level.name: feature for level, feature in zip(self.levels, maps, strict=True)}

    def freeze(self, modules: Iterable[nn.Module] = (), *, batch_norm: bool = True) -> Backbone:
        """Hold parts still while fine-tuning, as detectors do with small batches.

        Args:
            modules: parts of `body` whose parameters get no gradient.
            batch_norm: also keep every batch norm's statistics and affine parameters.
        Returns:
            self. Frozen norms stay in inference mode after `train()` too.
        """
        for module in modules:
            module.requires_grad_(False)
            self._frozen.append(module)
        if batch_norm:
            norms = [module for module in self.body.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
            for norm in norms:
                norm.requires_grad_(False)
            self._frozen.extend(norms)
        return self.train(self.training)

    def thaw(self) -> Backbone:
        """Let everything learn again. A backbone without trained weights needs it: batch norms that some networks
        start at zero would else keep whole blocks silent for ever.
        """
        self._frozen.clear()
        self.body.requires_grad_(True)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self


def wrap(body: nn.Module, *, in_channels: int = 3) -> Backbone:
    """Make a backbone of your own module.

    Args:
        body: takes (N, 3, H, W), returns maps, finest first: a list, a tuple or a dict. Maps that come channels-last,
            (N, H, W, C), are turned.
        in_channels: channels of the probing image.
    Returns:
        A `Backbone` whose levels were found by running `body` on blank images.
    Raises:
        ShapeError: it does not return (N, C, H, W) maps from fine to coarse.
    """
    channels_last = _channels_last(body, in_channels)
    if any(channels_last):
        body = ChannelsFirst(body, channels_last)
    return Backbone(body, probe_levels(body, in_channels=in_channels))


def probe_levels(body: nn.Module, *, in_channels: int = 3) -> tuple[LevelSpec, ...]:
    """Find strides and channels by running a module once, in inference mode, on a blank image.

    Raises:
        ShapeError: outputs are not (N, C, H, W), or not ordered from fine to coarse.
        ConfigError: it returns no map at all.
    """
    maps = run_blank(body, (PROBE_SIZE, PROBE_SIZE), in_channels)
    strides = [round(PROBE_SIZE / feature.shape[-1]) for feature in maps]
    if strides != sorted(set(strides)):
        raise ShapeError(
            f"backbone {type(body).__name__} returned maps of strides {strides}: "
            "expected each coarser than the one before; return them finest first, one a stride"
        )
    return name_levels(strides, [feature.shape[1] for feature in maps])


@torch.no_grad()
def run_blank(body: nn.Module, size: tuple[int, int], in_channels: int = 3) -> list[Tensor]:
    """The maps of a blank image, in inference mode; modes and statistics stay as they were.

    Raises:
        ShapeError: an output is no map of four dimensions.
        ConfigError: there is none.
    """
    modes = [(module, module.training) for module in body.modules()]
    body.eval()
    device = next((parameter.device for parameter in body.parameters()), torch.device("cpu"))
    try:
        maps = as_maps(body(torch.zeros(1, in_channels, *size, device=device)))
    finally:
        for module, was_training in modes:
            module.training = was_training
    if not maps:
        raise ConfigError(f"backbone {type(body).__name__} returned no maps: return at least one (N, C, H, W) map")
    for feature in maps:
        if not isinstance(feature, Tensor) or feature.ndim != 4:
            shape = tuple(feature.shape) if isinstance(feature, Tensor) else type(feature).__name__
            raise ShapeError(f"backbone {type(body).__name__} must return (N, C, H, W) maps, one of them is {shape}")
    return maps


def name_levels(strides: Sequence[int], channels: Sequence[int]) -> tuple[LevelSpec, ...]:
    """Levels of bottom-up maps, finest first: c2 at stride 4, c5 at 32."""
    numbers = level_numbers(strides)
    specs = zip(numbers, strides, channels, strict=True)
    return tuple(LevelSpec(f"c{k}", stride, width) for k, stride, width in specs)


def _channels_last(body: nn.Module, in_channels: int) -> list[bool]:
    """Which maps come as (N, H, W, C): their second dimension follows the height of the image."""
    maps = run_blank(body, (PROBE_SIZE, PROBE_SIZE), in_channels)
    if not any(each.shape[1] == each.shape[2] for each in maps):
        return [False] * len(maps)
    lower = run_blank(body, (PROBE_SIZE // 2, PROBE_SIZE), in_channels)
    return [a.shape[1] != b.shape[1] for a, b in zip(maps, lower, strict=True)]
