"""Folding batch norms leaves what a network computes as it was."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import Tensor, nn

from fpnkit import backbones
from fpnkit.backbones import wrap
from fpnkit.detectors import FasterRCNN
from fpnkit.heads import FastRCNNHead, RPNHead
from fpnkit.inference.fold import folded
from fpnkit.pyramids import FPN, BiFPN


def detector(backbone, pyramid=FPN) -> FasterRCNN:
    """On this backbone, with norms that have seen some images."""
    maps = pyramid(backbone.levels, 16)
    made = FasterRCNN(
        backbone=backbone, pyramid=maps, rpn=RPNHead(maps.levels), roi=FastRCNNHead(maps.levels, 2)
    ).train()
    with torch.no_grad():
        for norm in (module for module in made.modules() if isinstance(module, nn.BatchNorm2d)):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
            norm.momentum = 0.5
        made.features(torch.randn(2, 3, 128, 128))
    return made.eval()


def norms(network: nn.Module) -> int:
    return sum("BatchNorm" in type(module).__name__ for module in network.modules())


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "mobilenetv3_small_050"])
def test_norms_behind_convolutions_are_gone_and_features_stay(name: str) -> None:
    before = detector(backbones.timm(name))
    state = {key: value.clone() for key, value in before.state_dict().items()}
    after, images = folded(before), torch.randn(2, 3, 96, 160)
    assert norms(before) > 0
    assert norms(after) == 0
    for key, wanted in before.features(images).items():
        torch.testing.assert_close(after.features(images)[key], wanted, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(value, state[key]) for key, value in before.state_dict().items())


@torch.no_grad()
def test_norms_of_a_pyramid_are_folded_too() -> None:
    before = detector(backbones.timm("resnet18"), BiFPN)
    after, images = folded(before), torch.randn(1, 3, 128, 128)
    assert norms(after) < norms(before)
    for key, wanted in before.features(images).items():
        torch.testing.assert_close(after.features(images)[key], wanted, rtol=1e-3, atol=1e-3)


class Reused(nn.Module):
    """A convolution whose result goes to a norm and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, stride=4, padding=1), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> list[Tensor]:
        made = self.conv(images)
        return [self.norm(made) + made]


class Twice(nn.Module):
    """A norm that two convolutions share."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 3, stride=4, padding=1), nn.Conv2d(3, 4, 1, stride=4)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.norm(self.one(images)) + self.norm(self.other(images))]


@torch.no_grad()
@pytest.mark.parametrize("network", [Reused, Twice])
def test_what_cannot_be_folded_stays(network) -> None:
    before = detector(wrap(network()))
    after, images = folded(before), torch.randn(1, 3, 64, 64)
    assert norms(after) == norms(before)
    for key, wanted in before.features(images).items():
        assert torch.equal(after.features(images)[key], wanted)


@torch.no_grad()
def test_a_detector_without_pyramid_is_folded_by_what_it_finds() -> None:
    before = tiny.cells()
    after, given = folded(before), (torch.randn(2, 3, 90, 120), torch.tensor([[90.0, 120.0], [70.0, 60.0]]))
    assert (norms(before), norms(after)) == (1, 0)
    wanted = before(*given)
    assert wanted["valid"].sum() > 10
    for name, values in after(*given).items():
        torch.testing.assert_close(values, wanted[name], rtol=1e-3, atol=1e-3)


class Doubled(tiny.Cells):
    """Reads the result of its convolution a second time, past the norm."""

    def forward(self, images: Tensor, sizes_hw: Tensor) -> dict[str, Tensor]:
        found = super().forward(images, sizes_hw)
        return {**found, "scores": found["scores"] + self.body[0](images).mean((1, 2, 3))[:, None]}


@torch.no_grad()
def test_a_detector_without_pyramid_that_cannot_be_folded_stays() -> None:
    before = Doubled().eval()
    torch.nn.init.uniform_(before.body[1].running_var, 0.2, 0.5)
    after, given = folded(before), (torch.randn(1, 3, 96, 96), torch.tensor([[96.0, 96.0]]))
    assert norms(after) == 1
    assert torch.equal(after(*given)["scores"], before(*given)["scores"])
