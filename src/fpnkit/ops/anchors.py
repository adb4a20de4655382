"""Anchors of each pyramid level (section 4.1): one scale a level, three ratios."""

from __future__ import annotations

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


def grid_anchors(cell: Tensor, height: int, width: int, stride: tuple[float, float], *, offset: float) -> Tensor:
    """Repeat the cell anchors over a map.

    Args:
        cell: (R, 4) anchors around the origin.
        height, width: cells of the map.
        stride: pixels between cells, vertical and horizontal.
        offset: where in its cell an anchor is centred, in strides: 0.5 is the middle.
    Returns:
        (height * width * R, 4) xyxy pixels, row by row, ratios innermost; none is cut at the image border.
    """
    ys = (torch.arange(height, device=cell.device, dtype=cell.dtype) + offset) * stride[0]
    xs = (torch.arange(width, device=cell.device, dtype=cell.dtype) + offset) * stride[1]
    grid_y, grid_x = torch.meshgrid(ys, xs, indexing="ij")
    shifts = torch.stack([grid_x, grid_y, grid_x, grid_y], dim=-1)
    return (shifts[:, :, None, :] + cell).reshape(-1, 4)
