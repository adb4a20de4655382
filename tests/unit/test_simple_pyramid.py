"""Levels from one map, by arXiv:2203.16527."""

from __future__ import annotations

import pytest
import torch
from timm.layers import LayerNorm2d
from torch import nn

from fpnkit.backbones.simple_pyramid import SimplePyramid, pyramid_strides


@pytest.mark.parametrize(
    ("stride", "strides"),
    [(16, (4, 8, 16, 32)), (8, (4, 8, 16, 32)), (32, (4, 8, 16, 32)), (14, (7, 14, 28, 56)), (12, (6, 12, 24, 48))],
)
def test_strides_are_whole(stride, strides):
    assert pyramid_strides(stride) == strides


def test_levels_are_those_of_the_paper():
    pyramid = SimplePyramid(nn.Identity(), channels=8, stride=16, strides=(4, 8, 16, 32))
    kinds = [[type(step) for step in level] for level in pyramid.levels]
    up = nn.ConvTranspose2d
    assert kinds == [[up, LayerNorm2d, nn.GELU, up], [up], [], [nn.MaxPool2d]]
    last = torch.randn(2, 8, 5, 3)
    maps = pyramid(last)
    assert [tuple(each.shape) for each in maps] == [(2, 2, 20, 12), (2, 4, 10, 6), (2, 8, 5, 3), (2, 8, 3, 2)]
    assert maps[2] is last
    assert torch.equal(maps[3][..., 0, 0], last[..., :2, :2].amax((-2, -1)))


def test_a_single_cell_keeps_one():
    pyramid = SimplePyramid(nn.Identity(), channels=4, stride=16, strides=(16, 32))
    assert pyramid(torch.randn(1, 4, 1, 1))[1].shape == (1, 4, 1, 1)
