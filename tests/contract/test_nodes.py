"""Backbones by naming places inside a network."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from fpnkit.backbones import nodes, wrap
from fpnkit.errors import ConfigError, ShapeError
from fpnkit.structures import LevelSpec

LAYERS = ["layer1", "layer2", "layer3", "layer4"]


def test_a_torchvision_classifier():
    network = torchvision.models.resnet18()
    backbone = nodes(network, LAYERS).eval()
    assert backbone.levels == tuple(
        LevelSpec(f"c{k}", 2**k, channels) for k, channels in zip((2, 3, 4, 5), (64, 128, 256, 512), strict=True)
    )
    assert set(backbone.body.state_dict()) == {name for name in network.state_dict() if not name.startswith("fc")}
    images = torch.randn(2, 3, 75, 53)
    with torch.no_grad():
        maps = backbone(images)
        c2 = network.eval().layer1(network.maxpool(network.relu(network.bn1(network.conv1(images)))))
    torch.testing.assert_close(maps["c2"], c2)
    assert maps["c5"].shape == (2, 512, 3, 2)


def test_freeze_and_thaw():
    backbone = nodes(torchvision.models.resnet18(), LAYERS)
    backbone.freeze([backbone.body.layer1]).train()
    assert not getattr(backbone.body.layer1, "0").bn1.training
    assert not any(each.requires_grad for each in backbone.body.layer1.parameters())
    sum(each.square().mean() for each in backbone(torch.randn(2, 3, 64, 64)).values()).backward()
    assert all((each.grad is not None) == each.requires_grad for each in backbone.parameters())
    assert all(each.requires_grad for each in backbone.thaw().parameters())
    assert getattr(backbone.body.layer1, "0").bn1.training


def test_channels_last_maps_are_turned():
    backbone = nodes(torchvision.models.swin_t(), ["features.1", "features.3"]).eval()
    assert backbone.levels == (LevelSpec("c2", 4, 96), LevelSpec("c3", 8, 192))
    assert backbone(torch.zeros(1, 3, 64, 96))["c3"].shape == (1, 192, 8, 12)


def test_channels_last_is_not_mistaken_where_channels_equal_cells():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 64, 4, stride=4)

        def forward(self, images):
            return self.conv(images).permute(0, 2, 3, 1)

    assert wrap(Last())(torch.zeros(1, 3, 32, 16))["c2"].shape == (1, 64, 8, 4)


def test_an_unknown_place_gets_the_nearest():
    with pytest.raises(ConfigError, match=r"ResNet has no node 'layr4': did you mean layer4"):
        nodes(torchvision.models.resnet18(), ["layer3", "layr4"])
    with pytest.raises(ConfigError, match=r"ResNet has no node 'qqqqqq': it has x, conv1, bn1"):
        nodes(torchvision.models.resnet18(), ["qqqqqq"])


def test_what_is_no_map_is_refused():
    with pytest.raises(ShapeError, match=r"must return \(N, C, H, W\) maps, one of them is \(1, 512\)"):
        nodes(torchvision.models.resnet18(), ["layer4", "flatten"])


def test_a_network_that_cannot_be_traced_is_sent_to_wrap():
    class Branches(nn.Module):
        def forward(self, images):
            return images if images.sum() > 0 else -images

    with pytest.raises(ConfigError, match=r"Branches cannot be traced by torch.fx .*use fpnkit.backbones.wrap"):
        nodes(Branches(), ["neg"])
