"""What holds for every pyramid of every number of levels, strides, widths and image sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fpnkit.heads import FastRCNNConfig, FastRCNNHead, RPNHead
from fpnkit.ops.roi import level_numbers
from fpnkit.pyramids import (
    BiFPN,
    ImagePyramid,
    Pyramid,
)
from fpnkit.structures import LevelSpec

PYRAMIDS = {**tiny.PYRAMIDS, "BiFPN": partial(BiFPN, repeats=1)}


@st.composite
def backbones(draw) -> tuple[LevelSpec, ...]:
    """1 to 4 levels of any strides and widths, named as a wrapped module names them."""
    strides = sorted(draw(st.sets(st.integers(1, 60), min_size=1, max_size=4)))
    numbers = level_numbers(strides)
    return tuple(LevelSpec(f"c{k}", each, draw(st.integers(1, 5))) for k, each in zip(numbers, strides, strict=True))


SIZES = st.tuples(st.integers(1, 80), st.integers(1, 80))


def built(kind: str, levels: tuple[LevelSpec, ...], channels: int, extra: int) -> Pyramid:
    if kind == "ImagePyramid":
        stride = levels[-1].stride
        return ImagePyramid(
            levels, channels, scales=[stride / each for each in {max(1, stride // 2), stride, stride + 3}]
        )
    return PYRAMIDS[kind](levels, channels, extra_levels=extra + (kind == "BiFPN" and len(levels) == 1 and not extra))


def bottom_up(levels: tuple[LevelSpec, ...]) -> Callable[[Tensor], dict[str, Tensor]]:
    """A backbone without weights: every so many pixels of the image, shifted for each channel."""

    def maps(images: Tensor) -> dict[str, Tensor]:
        made = {}
        for level in levels:
            cells = images[..., :: level.stride, :: level.stride]
            made[level.name] = torch.cat([cells.roll(i, 1)[:, :1] * (1 + i) for i in range(level.channels)], dim=1)
        return made

    return maps


@pytest.mark.parametrize("kind", PYRAMIDS)
@settings(max_examples=12)
@given(levels=backbones(), size=SIZES, channels=st.integers(1, 5), extra=st.integers(0, 2), images=st.integers(1, 2))
def test_specs_match_outputs(kind, levels, size, channels, extra, images):
    pyramid = built(kind, levels, channels, extra).eval()
    out = pyramid.features(bottom_up(levels), torch.randn(images, 3, *size))
    assert list(out) == [level.name for level in pyramid.levels]
    assert len(set(out)) == len(pyramid.levels)
    for level in pyramid.levels:
        own = level.stride if kind == "ImagePyramid" else min(level.stride, levels[-1].stride)
        cells = [-(-side // own) for side in size]
        for _ in range(round(math.log2(level.stride / own))):
            cells = [-(-side // 2) for side in cells]  # extra levels double the stride of the coarsest map
        assert out[level.name].shape == (images, channels, *cells)
        assert out[level.name].isfinite().all()


@pytest.mark.parametrize("kind", PYRAMIDS)
@settings(max_examples=8)
@given(levels=backbones(), size=SIZES, channels=st.integers(4, 6), extra=st.integers(0, 2))
def test_gradients_reach_every_parameter(kind, levels, size, channels, extra):
    """In double, in inference mode (batch norm wants several cells in training), with every ReLU partly open."""
    torch.manual_seed(sum(size))
    pyramid = built(kind, levels, channels, extra).double().eval()
    for name, parameter in pyramid.named_parameters():
        if name.endswith(("bias", "gain")):
            nn.init.uniform_(parameter, 0.5, 1)
        elif parameter.ndim == 4:
            nn.init.uniform_(parameter, 0.1, 1)
    out = pyramid.features(bottom_up(levels), torch.rand(2, 3, *size).double())
    sum((each * torch.rand_like(each)).sum() for each in out.values()).backward()
    for name, each in pyramid.named_parameters():
        assert each.grad is not None, name
        assert each.grad.isfinite().all(), name
        assert each.grad.any(), name


def places_by_hand(levels: tuple[LevelSpec, ...], sides: list[float]) -> list[int]:
    """The coarsest level that serves a stride of at most 16/224 of the side, else the finest."""
    served = sorted((stride, place) for place, level in enumerate(levels) for stride in level.serves)
    fitting = [[place for stride, place in served if stride <= 16 * side / 224 + 1e-3] for side in sides]
    return [places[-1] if places else served[0][1] for places in fitting]


@pytest.mark.parametrize("kind", PYRAMIDS)
@settings(max_examples=6)
@given(levels=backbones(), size=SIZES, extra=st.integers(0, 2))
@torch.no_grad()
def test_heads_stand_on_every_pyramid(kind, levels, size, extra):
    """Anchors and logits count alike, every RoI has the level of eq. 1, and its number is in that level's name."""
    pyramid = built(kind, levels, 2, extra).eval()
    features = pyramid.features(bottom_up(levels), torch.randn(1, 3, *size))
    rpn = RPNHead(pyramid.levels)
    logits, deltas = rpn(features)
    counts = [len(each) for each in rpn.anchors(features, size)]
    assert [each.shape[1] for each in logits] == [each.shape[1] for each in deltas] == counts
    roi = FastRCNNHead(pyramid.levels, 2, config=FastRCNNConfig(hidden=2, pooled=1))
    corner = 2.0 ** torch.arange(-1, 14)
    rois = torch.stack([0 * corner, 0 * corner, corner, corner], dim=1)
    places = roi.assign_levels(rois).tolist()
    assert places == places_by_hand(roi.levels, corner.tolist())
    assert places == sorted(places)
    sides = torch.tensor([224 / 16 * level.stride for level in roi.levels])
    exact = roi.assign_levels(torch.stack([0 * sides, 0 * sides, sides, sides], dim=1)).tolist()
    assert exact == list(range(len(roi.levels)))  # no level goes without RoIs
    *_, numbers = roi(features, rois[None])
    assert numbers[0].tolist() == [int(roi.levels[place].name[1:]) for place in places]
