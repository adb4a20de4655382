"""Our FPN is torchvision's FPN: same weights, same outputs, same gradients."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from fpnkit.pyramids import FPN
from fpnkit.structures import LevelSpec

STRIDES = (4, 8, 16, 32)


def same_weights(channels: tuple[int, ...], width: int) -> tuple[FPN, FeaturePyramidNetwork]:
    """Both networks; theirs has random weights and biases, ours a copy."""
    ours = FPN([LevelSpec(f"c{2 + i}", STRIDES[i], each) for i, each in enumerate(channels)], width)
    theirs = FeaturePyramidNetwork(list(channels), width, extra_blocks=LastLevelMaxPool())
    with torch.no_grad():
        for our_layer, their_layer in layer_pairs(ours, theirs):
            their_layer.bias.normal_()
            our_layer.load_state_dict(their_layer.state_dict())
    return ours, theirs


def layer_pairs(ours: FPN, theirs: FeaturePyramidNetwork) -> list[tuple[torch.nn.Module, torch.nn.Module]]:
    """Each convolution of ours with its counterpart."""
    return [
        *zip(ours.lateral.values(), (block[0] for block in theirs.inner_blocks), strict=True),
        *zip(ours.smooth.values(), (block[0] for block in theirs.layer_blocks), strict=True),
    ]


def bottom_up(channels: tuple[int, ...], height: int, width: int) -> list[Tensor]:
    """Random maps of two images, as large as a backbone of these strides makes them."""
    return [
        torch.randn(2, each, -(-height // stride), -(-width // stride))
        for each, stride in zip(channels, STRIDES, strict=False)
    ]


def run(network: torch.nn.Module, names: list[str], maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and the gradients of the maps, for one fixed random gradient of the outputs."""
    leaves = [each.clone().requires_grad_() for each in maps]
    outputs = list(network(OrderedDict(zip(names, leaves, strict=True))).values())
    dice = torch.Generator().manual_seed(1)
    sum((each * torch.randn(each.shape, generator=dice)).sum() for each in outputs).backward()
    return outputs, [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("size", [(128, 128), (97, 131), (33, 200), (1, 1)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(
    ("channels", "width"),
    [((8, 16, 32, 64), 16), ((256, 512, 1024, 2048), 32), ((24, 40, 112), 48), ((7,), 5)],
    ids=["thin", "resnet50", "three levels", "one level"],
)
def test_outputs_and_gradients_equal_torchvision(channels: tuple[int, ...], width: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    ours, theirs = same_weights(channels, width)
    maps = bottom_up(channels, *size)
    our_outputs, our_grads = run(ours, [level.name for level in ours.in_levels], maps)
    their_outputs, their_grads = run(theirs, [str(i) for i in range(len(maps))], maps)

    assert len(our_outputs) == len(channels) + 1
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(our_outputs, their_outputs, **close)
    torch.testing.assert_close(our_grads, their_grads, **close)
    for our_layer, their_layer in layer_pairs(ours, theirs):
        assert their_layer.weight.grad.abs().sum() > 0
        torch.testing.assert_close(our_layer.weight.grad, their_layer.weight.grad, **close)
        torch.testing.assert_close(our_layer.bias.grad, their_layer.bias.grad, **close)
