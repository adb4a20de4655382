"""RoIs to levels (eq. 1) and RoIAlign over several levels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

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


@torch.library.custom_op("fpnkit::multi_level_roi_align", mutates_args=())
def multi_level_roi_align(
    features: list[Tensor],
    strides: list[int],
    rois: Tensor,
    level_index: Tensor,
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """RoIAlign, each RoI on its own level.

    Args:
        features: one (N, C, H/stride, W/stride) float map a level, finest first.
        strides: declared stride of each level.
        rois: (R, 5): image index, then xyxy in input pixels; values that are not finite count as 0.
        level_index: (R,) int64 into `features`.
        output_size: cells of the pooled map, 7.
        sampling_ratio: samples a cell side; 0 adapts to the RoI.
        aligned: shift by half a pixel so that cells and samples line up; torchvision's detectors do not.
    Returns:
        (R, C, output_size, output_size) in the order of `rois`.
    Source: arXiv:1703.06870, section 3; level choice by arXiv:1612.03144, section 4.2.
    """
    pooled = features[0].new_zeros(rois.shape[0], features[0].shape[1], output_size, output_size)
    rois = _finite(rois)
    for level, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        chosen = torch.where(level_index == level)[0]
        pooled[chosen] = roi_align(
            feature, rois[chosen].to(feature.dtype), output_size, 1.0 / stride, sampling_ratio, aligned
        )
    return pooled


@multi_level_roi_align.register_fake
def _(features, strides, rois, level_index, output_size, sampling_ratio, aligned):
    return features[0].new_empty(rois.shape[0], features[0].shape[1], output_size, output_size)


def _finite(rois: Tensor) -> Tensor:
    """torchvision's kernel reads at NaN coordinates outside of its map."""
    return rois.nan_to_num(0.0, 0.0, 0.0)


def _save_for_backward(ctx, inputs, output) -> None:
    features, strides, rois, level_index, output_size, sampling_ratio, aligned = inputs
    ctx.save_for_backward(rois, level_index)
    ctx.shapes = [feature.shape for feature in features]
    ctx.settings = (strides, output_size, sampling_ratio, aligned)


def _backward(ctx, grad):
    rois, level_index = ctx.saved_tensors
    rois = _finite(rois)
    strides, output_size, sampling_ratio, aligned = ctx.settings
    grads = []
    for level, ((images, channels, height, width), stride) in enumerate(zip(ctx.shapes, strides, strict=True)):
        chosen = torch.where(level_index == level)[0]
        grads.append(
            torch.ops.torchvision._roi_align_backward(
                grad[chosen].contiguous(),
                rois[chosen].to(grad.dtype),
                1.0 / stride,
                output_size,
                output_size,
                images,
                channels,
                height,
                width,
                sampling_ratio,
                aligned,
            )
        )
    return grads, None, None, None, None, None, None


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
