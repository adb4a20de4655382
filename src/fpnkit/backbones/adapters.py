"""What stands between a network with habits of its own and the contract: any image size in, (N, C, H, W) out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError


def as_maps(output: Tensor | Sequence[Tensor] | Mapping[str, Tensor]) -> list[Tensor]:
    """The maps of a body's output, whatever container it uses."""
    if isinstance(output, Tensor):
        return [output]
    if not isinstance(output, Iterable):
        raise ShapeError(f"expected a body that returns a list, tuple or dict of maps, got {type(output).__name__}")
    return list(output.values() if isinstance(output, Mapping) else output)


class Adapter(nn.Module):
    """Holds the network that it adapts.

    Attributes:
        network: another module, the trained one or a further adapter.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


def innermost(body: nn.Module) -> nn.Module:
    """The network inside its adapters: the one that ImageNet weights belong to."""
    while isinstance(body, Adapter):
        body = body.network
    return body


class ChannelsFirst(Adapter):
    """Turns maps that come channels-last.

    Args:
        network: (N, 3, H, W) -> maps.
        channels_last: for each map, whether it comes as (N, H, W, C).
    """

    def __init__(self, network: nn.Module, channels_last: Sequence[bool]) -> None:
        super().__init__(network)
        self.channels_last = tuple(channels_last)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> maps, each (N, C, H/stride, W/stride)."""
        maps = as_maps(self.network(images))
        pairs = zip(maps, self.channels_last, strict=True)
        return [each.permute(0, 3, 1, 2).contiguous() if last else each for each, last in pairs]


class Canvas(Adapter):
    """Puts images on a canvas of a size that the network takes, and cuts its maps back to the image.

    A map of stride s has ceil(side / s) cells afterwards, so its stride holds whatever the canvas measured.

    Args:
        network: (N, 3, H, W) -> maps (N, C, ., .) of these strides.
        name: of the network, for the error.
        strides: of each map.
        multiple: what the sides of the canvas must be a multiple of.
        fixed: height and width of the only canvas that the network takes, if so.
        margin: pixels that convolutions without padding lose on the way; half of them go above and to the left.
        starts: the cell of each map in which the image begins; not 0 only with a margin.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        strides: Sequence[int],
        multiple: int = 1,
        fixed: tuple[int, int] | None = None,
        margin: int = 0,
        starts: Sequence[int],
    ) -> None:
        super().__init__(network)
        self.name = name
        self.strides, self.starts = tuple(strides), tuple(starts)
        self.multiple, self.fixed, self.margin = multiple, fixed, margin

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> maps, each (N, C, ceil(H/stride), ceil(W/stride)).

        Raises:
            ConfigError: the image is larger than a fixed canvas.
        """
        height, width = images.shape[-2:]
        bottom, right = self._canvas(height, width)
        before = self.margin // 2
        around = (before, right - width - before, before, bottom - height - before)
        maps = as_maps(self.network(F.pad(images, around)))
        return [
            each[..., start : start - (-height // stride), start : start - (-width // stride)]
            for each, start, stride in zip(maps, self.starts, self.strides, strict=True)
        ]

    def _canvas(self, height: int, width: int) -> tuple[int, int]:
        if self.fixed is None:
            return round_up(height + self.margin, self.multiple), round_up(width + self.margin, self.multiple)
        most = (self.fixed[0] - self.margin, self.fixed[1] - self.margin)
        if height > most[0] or width > most[1]:
            raise ConfigError(
                f"{self.name} is built for images of up to {most[0]}x{most[1]} pixels, got {height}x{width}: "
                "pass image_size=(height, width) of your largest image to fpnkit.backbones.timm"
            )
        return self.fixed


def round_up(side: int, multiple: int) -> int:
    """The next multiple from a side on."""
    return -(-side // multiple) * multiple
