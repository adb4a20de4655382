"""TensorFlow's SAME padding in a form that one graph can hold for every image size."""

from __future__ import annotations

import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn


class SameConv2d(nn.Conv2d):
    """timm's `Conv2dSame`, computed in a way that compilers and exporters can follow.

    timm pads as much as each size needs, so the size of every map holds the size before it several times, and with
    symbolic image sizes torch.export does not come to an end. Here a map grows by a constant, the size of the result
    is plainly (side - 1) // stride + 1, and only the share that goes to the left and top depends on the side. What
    is too much at the right and bottom lies beyond the last step of the kernel.
    """

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, D, ceil(H / stride), ceil(W / stride))."""
        (top, bottom), (left, right) = (self._around(side, axis) for axis, side in enumerate(images.shape[-2:]))
        padded = F.pad(images, (left, right, top, bottom))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def _around(self, side: int, axis: int) -> tuple[int, int]:
        """Cells to add before and after a side."""
        reach, stride = _reach(self, axis), self.stride[axis]
        before = (reach - stride + (-side) % stride) // 2
        return before, reach - 1 - before


def simplify_same_padding(network: nn.Module) -> None:
    """Let every `Conv2dSame` of a network compute as `SameConv2d`, where it can; weights and names stay."""
    for module in network.modules():
        if type(module) is Conv2dSame and all(_reach(module, axis) >= module.stride[axis] for axis in (0, 1)):
            module.__class__ = SameConv2d  # type: ignore[assignment]


def _reach(conv: nn.Conv2d, axis: int) -> int:
    """Cells that a dilated kernel spans; the formula above needs it to be no shorter than the stride."""
    return (conv.kernel_size[axis] - 1) * conv.dilation[axis] + 1
