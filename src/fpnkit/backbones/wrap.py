"""Give any module that returns maps the one contract of a backbone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..ops.roi import level_number
from ..structures import LevelSpec

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
        body: takes (N, 3, H, W), returns maps, finest first: a list, a tuple or a dict.
        in_channels: channels of the probing image.
    Returns:
        A `Backbone` whose levels were found by running `body` once on a blank image.
    Raises:
        ShapeError: it does not return (N, C, H, W) maps from fine to coarse.
    """
    return Backbone(body, probe_levels(body, in_channels=in_channels))


def as_maps(output: Tensor | Sequence[Tensor] | Mapping[str, Tensor]) -> list[Tensor]:
    """The maps of a body's output, whatever container it uses."""
    if isinstance(output, Tensor):
        return [output]
    if not isinstance(output, Iterable):
        raise ShapeError(f"expected a body that returns a list, tuple or dict of maps, got {type(output).__name__}")
    return list(output.values() if isinstance(output, Mapping) else output)


@torch.no_grad()
def probe_levels(body: nn.Module, *, in_channels: int = 3) -> tuple[LevelSpec, ...]:
    """Find strides and channels by running a module once, in inference mode, on a blank image.

    Raises:
        ShapeError: outputs are not (N, C, H, W), or not ordered from fine to coarse.
        ConfigError: it returns no map at all.
    """
    modes = [(module, module.training) for module in body.modules()]
    body.eval()
    device = next((parameter.device for parameter in body.parameters()), torch.device("cpu"))
    try:
        maps = as_maps(body(torch.zeros(1, in_channels, PROBE_SIZE, PROBE_SIZE, device=device)))
    finally:
        for module, was_training in modes:
            module.training = was_training
    if not maps:
        raise ConfigError(f"backbone {type(body).__name__} returned no maps: return at least one (N, C, H, W) map")
    for feature in maps:
        if not isinstance(feature, Tensor) or feature.ndim != 4:
            shape = tuple(feature.shape) if isinstance(feature, Tensor) else type(feature).__name__
            raise ShapeError(f"backbone {type(body).__name__} must return (N, C, H, W) maps, one of them is {shape}")
    strides = [round(PROBE_SIZE / feature.shape[-1]) for feature in maps]
    if strides != sorted(set(strides)):
        raise ShapeError(
            f"backbone {type(body).__name__} returned maps of strides {strides}: "
            "expected each coarser than the one before; return them finest first, one a stride"
        )
    levels: list[LevelSpec] = []
    number = 0
    for stride, feature in zip(strides, maps, strict=True):
        number = max(level_number(stride), number + 1 if levels else 0)  # strides 4 and 5 are c2 and c3
        levels.append(LevelSpec(f"c{number}", stride, feature.shape[1]))
    return tuple(levels)
