"""What small networks with one habit each are found to need."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from fpnkit.backbones.fit import find_fits
from fpnkit.errors import ConfigError


class Toy(nn.Module):
    """Two convolutions of stride 4 each; claims to be trained on 64x64 and publishes no stride at all."""

    kernels = (4, 4)
    side = 64
    padding = 0

    def __init__(self, out_indices=(0, 1)) -> None:
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, self.side, self.side)}
        self.feature_info = SimpleNamespace(out_indices=tuple(out_indices))
        first, second = self.kernels
        self.stem = nn.Conv2d(3, 8, first, stride=4, padding=self.padding)
        self.down = nn.Conv2d(8, 16, second, stride=4, padding=self.padding)

    def forward(self, images: Tensor) -> list[Tensor]:
        c2 = self.stem(images)
        maps = [c2, self.down(c2)]
        return [maps[i] for i in self.feature_info.out_indices]


class Multiples(Toy):
    def forward(self, images: Tensor) -> list[Tensor]:
        assert all(side % 32 == 0 for side in images.shape[-2:])
        return super().forward(images)


class Last(Toy):
    def forward(self, images: Tensor) -> list[Tensor]:
        return [each.permute(0, 2, 3, 1) for each in super().forward(images)]


class Valid(Toy):
    kernels = (11, 9)


class OneSize(Toy):
    def __init__(self, out_indices=(0, 1), img_size=None) -> None:
        super().__init__(out_indices)
        self.size = img_size or (self.side, self.side)

    def forward(self, images: Tensor) -> list[Tensor]:
        assert tuple(images.shape[-2:]) == tuple(self.size)
        return super().forward(images)


class Resizes(Toy):
    """Brings every image to one size, so its maps have no stride."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return super().forward(nn.functional.interpolate(images, (self.side, self.side)))


def fit(build, strides=None, image_size=None):
    return next(find_fits(build, "toy", strides, image_size))


def test_a_plain_network_needs_nothing():
    found = fit(Toy)
    assert (found.strides, found.multiple, found.fixed, found.margin) == ((4, 16), 1, None, 0)
    network = Toy()
    assert found.dress(network, "toy") is network


def test_multiples():
    found = fit(Multiples)
    assert (found.strides, found.multiple, found.fixed) == ((4, 16), 32, None)
    maps = found.dress(Multiples(), "toy")(torch.zeros(1, 3, 75, 53))
    assert [tuple(each.shape) for each in maps] == [(1, 8, 19, 14), (1, 16, 5, 4)]


def test_channels_last():
    maps = fit(Last).dress(Last(), "toy")(torch.zeros(1, 3, 64, 32))
    assert [tuple(each.shape) for each in maps] == [(1, 8, 16, 8), (1, 16, 4, 2)]


def test_one_size():
    found = fit(OneSize)
    assert (found.strides, found.fixed) == ((4, 16), (64, 64))
    larger = fit(OneSize, image_size=(65, 100))
    assert larger.keywords == {"out_indices": (0, 1), "img_size": (96, 128)}
    maps = larger.dress(OneSize(**larger.keywords), "toy")(torch.zeros(1, 3, 65, 100))
    assert [tuple(each.shape[-2:]) for each in maps] == [(17, 25), (5, 7)]


@torch.no_grad()
def test_lost_borders_are_given_back_where_they_were():
    found = fit(Valid)
    assert found.strides == (4, 16)
    network = Valid()
    for parameter in network.parameters():
        parameter.fill_(float(parameter.ndim > 1))
    body = found.dress(network, "toy")
    for row, column in ((0, 0), (10, 80), (63, 95), (31, 40)):
        image = torch.zeros(1, 3, 64, 96)
        image[..., row, column] = 1
        for each, stride in zip(body(image), found.strides, strict=True):
            weight = each[0].sum(0)
            assert weight.shape == (64 // stride, 96 // stride)
            rows, columns = weight.nonzero(as_tuple=True)
            inside = 0 < row < 63 and 0 < column < 95
            for cells, pixel in ((rows, row), (columns, column)):
                centre = (float(cells.float().mean()) + 0.5) * stride
                assert abs(centre - pixel) <= stride if inside else len(cells)


def test_without_strides_it_is_refused():
    with pytest.raises(ConfigError, match=r"toy has maps of strides \[4, 16\], not \[8\]: pass strides=... from these"):
        fit(Toy, strides=(4, 8))


def test_a_network_that_resizes_is_taken_at_its_own_size_only():
    found = fit(Resizes)
    assert found.fixed == (64, 64)


def test_a_network_that_never_runs_is_refused():
    class Broken(Toy):
        def forward(self, images: Tensor) -> list[Tensor]:
            raise RuntimeError("no")

    with pytest.raises(ConfigError, match="toy runs on no image that was tried"):
        fit(Broken)


def test_too_few_strides():
    class Coarse(Toy):
        def __init__(self, out_indices=(0, 1)) -> None:
            super().__init__(out_indices)
            self.stem = nn.Conv2d(3, 8, 32, stride=32)
            self.down = nn.Conv2d(8, 16, 2, stride=2)

    with pytest.raises(ConfigError, match=r"toy has maps of strides \[32, 64\], and a pyramid takes two or more"):
        fit(Coarse)
