"""Depthwise convolutions in float32 within bfloat16 training on CPUs."""

from __future__ import annotations

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from ..backbones.same_padding import SameConv2d


class _Float32WhileTraining(nn.Conv2d):
    """Leaves autocast where a gradient of the weights is computed; anywhere else it computes as the layer it was."""

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, D, H', W'), float32 where the weights are trained."""
        if not (torch.is_grad_enabled() and self.weight.requires_grad):
            return super().forward(features)
        with torch.autocast("cpu", enabled=False):
            return super().forward(features.float())


class Float32Conv2d(_Float32WhileTraining):
    """`nn.Conv2d` that is trained in float32."""


class Float32SameConv2d(_Float32WhileTraining, SameConv2d):
    """`SameConv2d` that is trained in float32."""


class Float32Conv2dSame(_Float32WhileTraining, Conv2dSame):
    """timm's `Conv2dSame` that is trained in float32."""


_TRAINED_IN_FLOAT32: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: Float32Conv2d,
    SameConv2d: Float32SameConv2d,
    Conv2dSame: Float32Conv2dSame,
}


def keep_depthwise_in_float32(network: nn.Module) -> None:
    """Let trainable depthwise convolutions stay out of CPU mixed precision.

    Their bfloat16 backward pass on CPUs takes 3 to 15 times as long as in float32 (measured at 5x5 and at stride 2),
    which is more than the rest of the network gains. Only the class of a layer changes: names of weights stay, and
    the network can be copied, pickled and folded as before. Layers of other classes are left as they are.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1 and layer.weight.requires_grad:
            layer.__class__ = _TRAINED_IN_FLOAT32.get(type(layer), type(layer))  # type: ignore[assignment]
