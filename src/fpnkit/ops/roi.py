"""RoIs to levels (eq. 1) and RoIAlign over several levels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from ..errors import ShapeError
from .boxes import area

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


@torch.library.custom_op("fpnkit::multi_level_roi_align", mutates_args=(), tags=[torch.Tag.cudagraph_unsafe])
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
    pooled = [
        roi_align(feature, group, output_size, 1.0 / stride, sampling_ratio, aligned)
        for feature, group, stride in zip(features, groups, strides, strict=True)
    ]
    return torch.cat(pooled), rois[:, 1:].clone()


@multi_level_roi_align.register_fake
def _(features, strides, rois, level_index, output_size, sampling_ratio, aligned):
    pooled = features[0].new_empty(rois.shape[0], features[0].shape[1], output_size, output_size)
    return pooled, torch.empty_like(rois[:, 1:])


def _finite(rois: Tensor) -> Tensor:
    """torchvision's kernel reads at NaN coordinates outside of its map."""
    return rois.nan_to_num(0.0, 0.0, 0.0)


def _by_level(rows: Tensor, level_index: Tensor, levels: int) -> tuple[Tensor, ...]:
    """Rows that are sorted by level, as one piece a level."""
    if (level_index.diff() < 0).any():
        raise ShapeError("multi_level_roi_align expects RoIs sorted by level: index both with level_index.argsort()")
    return rows.split(level_index.bincount(minlength=levels).tolist())


@torch.library.custom_op("fpnkit::multi_level_roi_align_backward", mutates_args=(), tags=[torch.Tag.cudagraph_unsafe])
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
    _, channels, *cells = grad.shape
    return [
        torch.ops.torchvision._roi_align_backward(
            piece, group, 1.0 / stride, *cells, images, channels, height, width, sampling_ratio, aligned
        )
        for piece, group, stride, height, width in zip(pieces, groups, strides, heights, widths, strict=True)
    ]


@_backward_op.register_fake
def _(grad, rois, level_index, strides, images, heights, widths, sampling_ratio, aligned):
    sizes = zip(heights, widths, strict=True)
    return [grad.new_empty(images, grad.shape[1], height, width) for height, width in sizes]


def _save_for_backward(ctx, inputs, output) -> None:
    features, strides, rois, level_index, _, sampling_ratio, aligned = inputs
    ctx.save_for_backward(rois, level_index)
    heights, widths = ([feature.shape[side] for feature in features] for side in (2, 3))
    ctx.settings = (strides, features[0].shape[0], heights, widths, sampling_ratio, aligned)


def _backward(ctx, grad, _grad_of_boxes):
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
