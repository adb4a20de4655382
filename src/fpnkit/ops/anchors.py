"""Anchors of each pyramid level (section 4.1): one scale a level, three ratios."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError


def cell_anchors(size: float, ratios: tuple[float, ...]) -> Tensor:
    """Anchors of one area around the origin.

    Args:
        size: side of the square anchor in pixels; all ratios have its area.
        ratios: height over width.
    Returns:
        (ratios, 4) xyxy pixels around (0, 0).
    Raises:
        ConfigError: a size or ratio that is not positive.
    """
    if size <= 0 or min(ratios, default=0) <= 0:
        raise ConfigError(f"anchor size and ratios must be positive, got size {size} and ratios {ratios}")
    heights = size * torch.tensor(ratios, dtype=torch.float32).sqrt()
    widths = size / torch.tensor(ratios, dtype=torch.float32).sqrt()
    return torch.stack([-widths, -heights, widths, heights], dim=1) / 2


@dataclass(frozen=True)
class AnchorGrid:
    """The cell anchors repeated over a map: row by row, ratios innermost; none is cut at the image border.

    `grid[index]` makes only the anchors that are asked for: of 163,000 on P2 the RPN keeps 1,000.

    Attributes:
        cell: (R, 4) anchors around the origin.
        height, width: cells of the map.
        stride: pixels between cells, vertical and horizontal.
        offset: where in its cell an anchor is centred, in strides: 0.5 is the middle.
    """

    cell: Tensor
    height: int
    width: int
    stride: tuple[float, float]
    offset: float

    def __getitem__(self, index: Tensor) -> Tensor:
        """Anchors by their number: (...) int64 -> (..., 4) xyxy pixels."""
        ratios = len(self.cell)
        place = torch.div(index, ratios, rounding_mode="trunc")
        row = torch.div(place, self.width, rounding_mode="trunc")
        ys = (row + self.offset) * self.stride[0]
        xs = (place - row * self.width + self.offset) * self.stride[1]
        return torch.stack([xs, ys, xs, ys], dim=-1) + self.cell[index - place * ratios]

    def all(self) -> Tensor:
        """Every anchor in order: (height * width * R, 4) xyxy pixels."""
        return self[torch.arange(self.height * self.width * len(self.cell), device=self.cell.device)]
