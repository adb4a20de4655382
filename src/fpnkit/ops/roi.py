"""RoIs to levels (eq. 1) and RoIAlign over several levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from ..errors import ShapeError
from .boxes import area
from .operators import register

K0 = 4
CANONICAL_SIZE = 224.0
"""Eq. 1: an RoI of the ImageNet size 224 x 224 belongs to P4."""


def roi_levels(rois_xyxy: Tensor, strides: Sequence[int], *, canonical_size: float = CANONICAL_SIZE) -> Tensor:
    """The pyramid level of each RoI: eq. 1, for strides that need not double.

    Eq. 1 gives an RoI to P_k with k = floor(k0 + log2(sqrt(w h) / 224)). P_k has stride 2^k: that is the coarsest level
    whose stride is at most 2^k0 sqrt(w h) / 224.

    Args:
        rois_xyxy: (..., 4) input pixels.
        strides: of the levels, rising.
        canonical_size: side in pixels of the RoI that belongs to P4.
    Returns:
        (...) int64 index into `strides`; the finest level where an RoI is too small for any, or is not finite.
    Source: arXiv:1612.03144, eq. 1. Deviation: sides count as larger by 2^1e-6, so that exact powers of two fall on
    the upper level in spite of rounding.
    """
    widest = area(rois_xyxy).clamp(min=0).sqrt() * (2**K0 / canonical_size * 2**1e-6)
    coarser = torch.tensor(strides[1:], dtype=widest.dtype, device=widest.device)
    return (widest[..., None] >= coarser).sum(dim=-1)


@register("fpnkit::multi_level_roi_align")
def multi_level_roi_align(
    features: list[Tensor],
    strides: list[int],
    rois: Tensor,
    level_index: Tensor,
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Tensor, Tensor]:
    """RoIAlign, each RoI on its own level.

    The RoIs come sorted by level, so that the pooled maps of the levels are simply one after the other: moving
    pooled maps to another order costs more than all the rest of the tail. Their boxes are returned, too, to decode
    deltas from: runtimes that compute in bfloat16 leave in float32 only what their results are made of, and would
    round boxes that lead to pooled maps alone, to 4 pixels at 600.

    Args:
        features: one (N, C, H/stride, W/stride) float map a level, finest first.
        strides: declared stride of each level.
        rois: (R, 5): image index, then xyxy in input pixels; values that are not finite count as 0.
        level_index: (R,) int64 into `features`, rising.
        output_size: cells of the pooled map, 7.
        sampling_ratio: samples a cell side; 0 adapts to the RoI.
        aligned: shift by half a pixel so that cells and samples line up; torchvision's detectors do not.
    Returns:
        The pooled maps (R, C, output_size, output_size), and a copy of the boxes in `rois` (R, 4).
    Raises:
        ShapeError: the RoIs are not sorted by level.
    Source: arXiv:1703.06870, section 3; level choice by arXiv:1612.03144, section 4.2.
    """
    groups = _by_level(_finite(rois).to(features[0].dtype), level_index, len(features))
    align = _gathered if _gathers(features[0], sampling_ratio) else roi_align
    pooled = [
        align(feature, group, output_size, 1.0 / stride, sampling_ratio, aligned)
        for feature, group, stride in zip(features, groups, strides, strict=True)
    ]
    return torch.cat(pooled), rois[:, 1:].clone()


@multi_level_roi_align.register_fake
def _(
    features: list[Tensor],
    strides: list[int],
    rois: Tensor,
    level_index: Tensor,
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Tensor, Tensor]:
    pooled = features[0].new_empty(rois.shape[0], features[0].shape[1], output_size, output_size)
    return pooled, torch.empty_like(rois[:, 1:])


def _gathers(values: Tensor, sampling_ratio: int) -> bool:
    """Whether RoIAlign is computed as a weighted sum of rows: on CPUs it takes a fifth of torchvision's time."""
    return values.device.type == "cpu" and sampling_ratio > 0


def _gathered(
    feature: Tensor, rois: Tensor, output_size: int, scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """RoIAlign as weighted sums of the map's cells, all channels of a cell at once."""
    channels, (height, width) = feature.shape[1], feature.shape[2:]
    index, weight = _samples(rois, height, width, output_size, scale, sampling_ratio, aligned)
    rows = feature.permute(0, 2, 3, 1).reshape(-1, channels)
    pooled = F.embedding_bag(index, rows, mode="sum", per_sample_weights=weight)
    return pooled.reshape(len(rois), output_size, output_size, channels).permute(0, 3, 1, 2).contiguous()


def _scattered(
    grad: Tensor,
    rois: Tensor,
    scale: float,
    output_size: int,
    images: int,
    height: int,
    width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """The gradient of `_gathered` for the map, (images, C, height, width) channels last."""
    channels, cells = grad.shape[1], images * height * width
    index, weight = _samples(rois, height, width, output_size, scale, sampling_ratio, aligned)
    bags, entries = index.shape
    bag_of = torch.arange(bags).repeat_interleave(entries)
    rows = torch.ops.aten._embedding_bag_dense_backward(
        grad.permute(0, 2, 3, 1).reshape(-1, channels),
        index.flatten(),
        bag_of,
        torch.full((bags,), entries),
        torch.empty(0, dtype=torch.int64),
        cells,
        False,
        0,  # sums
        weight.flatten(),
    )
    return rows.reshape(images, height, width, channels).permute(0, 3, 1, 2)


def _samples(
    rois: Tensor, height: int, width: int, output_size: int, scale: float, sampling_ratio: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """What each pooled cell sums up, cells of the map and weights: both (R output_size^2, 4 sampling_ratio^2)."""
    shift = 0.5 if aligned else 0.0
    low, high = rois[:, 1:3] * scale - shift, rois[:, 3:5] * scale - shift
    sides = high - low if aligned else (high - low).clamp(min=1.0)
    cell = (sides / output_size)[:, :, None, None]
    places = torch.arange(output_size, dtype=rois.dtype)[:, None]
    samples = torch.arange(sampling_ratio, dtype=rois.dtype) + 0.5
    at = (low[:, :, None, None] + places * cell + samples * cell / sampling_ratio).flatten(2)
    columns, across = _corners(at[:, 0], width, output_size)
    rows, down = _corners(at[:, 1], height, output_size)
    index = rows[:, :, None, :, None] * width + columns[:, None, :, None, :]
    index = index + (rois[:, 0].long() * height * width)[:, None, None, None, None]
    weight = down[:, :, None, :, None] * across[:, None, :, None, :] / sampling_ratio**2
    bags = (len(rois) * output_size**2, (2 * sampling_ratio) ** 2)
    return index.reshape(bags), weight.reshape(bags)


def _corners(at: Tensor, side: int, output_size: int) -> tuple[Tensor, Tensor]:
    """Along one axis, the two cells around each sample and their weights: both (R, output_size, 2 sampling_ratio)."""
    inside = (at >= -1) & (at <= side)
    at = at.clamp(0, side - 1)
    first = at.floor()
    part = at - first
    cells = torch.stack([first.long(), (first.long() + 1).clamp(max=side - 1)], dim=-1)
    weights = torch.stack([1 - part, part], dim=-1) * inside[..., None]
    by_place = (len(at), output_size, 2 * at.shape[1] // output_size)
    return cells.reshape(by_place), weights.reshape(by_place)


def _finite(rois: Tensor) -> Tensor:
    """torchvision's kernel reads at NaN coordinates outside of its map."""
    return rois.nan_to_num(0.0, 0.0, 0.0)


def _by_level(rows: Tensor, level_index: Tensor, levels: int) -> tuple[Tensor, ...]:
    """Rows that are sorted by level, as one piece a level."""
    if (level_index.diff() < 0).any():
        raise ShapeError("multi_level_roi_align expects RoIs sorted by level: index both with level_index.argsort()")
    return rows.split(level_index.bincount(minlength=levels).tolist())


@register("fpnkit::multi_level_roi_align_backward")
def _backward_op(
    grad: Tensor,
    rois: Tensor,
    level_index: Tensor,
    strides: list[int],
    images: int,
    heights: list[int],
    widths: list[int],
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    pieces = _by_level(grad.contiguous(), level_index, len(strides))
    groups = _by_level(_finite(rois).to(grad.dtype), level_index, len(strides))
    scatter = _scattered if _gathers(grad, sampling_ratio) else _torchvision_backward
    return [
        scatter(piece, group, 1.0 / stride, grad.shape[-1], images, height, width, sampling_ratio, aligned)
        for piece, group, stride, height, width in zip(pieces, groups, strides, heights, widths, strict=True)
    ]


def _torchvision_backward(
    grad: Tensor, rois: Tensor, scale: float, output_size: int, images: int, height: int, width: int, *how: Any
) -> Tensor:
    cells, channels = (output_size, output_size), grad.shape[1]
    made = torch.ops.torchvision._roi_align_backward(grad, rois, scale, *cells, images, channels, height, width, *how)
    return made.contiguous(memory_format=torch.channels_last)


@_backward_op.register_fake
def _(
    grad: Tensor,
    rois: Tensor,
    level_index: Tensor,
    strides: list[int],
    images: int,
    heights: list[int],
    widths: list[int],
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    sizes = zip(heights, widths, strict=True)
    return [grad.new_empty(images, height, width, grad.shape[1]).permute(0, 3, 1, 2) for height, width in sizes]


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    features, strides, rois, level_index, _, sampling_ratio, aligned = inputs
    ctx.save_for_backward(rois, level_index)
    heights, widths = ([feature.shape[side] for feature in features] for side in (2, 3))
    ctx.settings = (strides, features[0].shape[0], heights, widths, sampling_ratio, aligned)


def _backward(ctx: Any, grad: Tensor, _grad_of_boxes: Tensor) -> tuple[Any, ...]:
    return _backward_op(grad, *ctx.saved_tensors, *ctx.settings), None, None, None, None, None, None


multi_level_roi_align.register_autograd(_backward, setup_context=_save_for_backward)


def level_number(stride: int) -> int:
    """The k of P_k for a stride: 4 -> 2, 32 -> 5; strides between powers of two round to the nearest."""
    return round(math.log2(stride))


def level_numbers(strides: Sequence[int]) -> list[int]:
    """A different k for each of several rising strides: 4, 5, 8 give 2, 3, 4."""
    numbers: list[int] = []
    for stride in strides:
        numbers.append(max(level_number(stride), numbers[-1] + 1 if numbers else 0))
    return numbers
