"""Our FPN is torchvision's FPN: same weights, same outputs, same gradients."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7

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


@pytest.mark.parametrize(("extra", "on_p5"), [("conv_c5", False), ("conv_p5", True)])
def test_p6_and_p7_equal_torchvision(extra: str, on_p5: bool) -> None:
    channels, width = (8, 16, 24), 12
    ours = FPN(
        [LevelSpec(f"c{3 + i}", 8 * 2**i, each) for i, each in enumerate(channels)], width, extra_levels=2, extra=extra
    )
    blocks = LastLevelP6P7(width if on_p5 else channels[-1], width)
    theirs = FeaturePyramidNetwork(list(channels), width, extra_blocks=blocks)
    with torch.no_grad():
        pairs = [*layer_pairs(ours, theirs), (ours.extra.conv["p6"], blocks.p6), (ours.extra.conv["p7"], blocks.p7)]
        for our_layer, their_layer in pairs:
            our_layer.load_state_dict(their_layer.state_dict())
    maps = [torch.randn(2, each, -(-77 // 2**i), -(-54 // 2**i)) for i, each in enumerate(channels)]
    (our_maps, our_grads), (their_maps, their_grads) = (run(each, ["c3", "c4", "c5"], maps) for each in (ours, theirs))
    for one, other in zip([*our_maps, *our_grads], [*their_maps, *their_grads], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_norms_stand_where_torchvision_puts_them() -> None:
    channels, width = (8, 16), 12
    ours = FPN(
        [LevelSpec("c4", 16, 8), LevelSpec("c5", 32, 16)], width, norm=torch.nn.BatchNorm2d, extra_levels=0
    ).train()
    theirs = FeaturePyramidNetwork(list(channels), width, norm_layer=torch.nn.BatchNorm2d).train()
    for our_layers, blocks in ((ours.lateral, theirs.inner_blocks), (ours.smooth, theirs.layer_blocks)):
        for layer, block in zip(our_layers.values(), blocks, strict=True):
            layer.load_state_dict(block.state_dict())
    maps = [torch.randn(2, 8, 9, 7), torch.randn(2, 16, 5, 4)]
    for one, other in zip(*(run(each, ["c4", "c5"], maps)[0] for each in (ours, theirs)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
