"""TensorFlow's SAME padding in whole numbers, so that one graph serves every image size."""

from __future__ import annotations

import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn


class SameConv2d(nn.Conv2d):
    """timm's `Conv2dSame`, computed in a way that compilers and exporters can follow.

    timm rounds through floats and takes a maximum; with symbolic image sizes torch.export does not come to an end
    on that. For kernels at least as wide as their stride the same padding is a remainder.
    """

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, D, ceil(H / stride), ceil(W / stride))."""
        height, width = (self._missing(side, axis) for axis, side in enumerate(images.shape[-2:]))
        around = (width // 2, width - width // 2, height // 2, height - height // 2)
        return F.conv2d(F.pad(images, around), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def _missing(self, side: int, axis: int) -> int:
        """Cells to add to a side: the kernel's overhang, and what lacks to a whole number of strides."""
        return reach(self, axis) - self.stride[axis] + (-side) % self.stride[axis]


def reach(conv: nn.Conv2d, axis: int) -> int:
    """Cells that a dilated kernel spans."""
    return (conv.kernel_size[axis] - 1) * conv.dilation[axis] + 1


def simplify_same_padding(network: nn.Module) -> None:
    """Let every `Conv2dSame` of a network compute as `SameConv2d`, where it can; weights and names stay."""
    for module in network.modules():
        if type(module) is Conv2dSame and all(reach(module, axis) >= module.stride[axis] for axis in (0, 1)):
            module.__class__ = SameConv2d
