"""Each pyramid against arithmetic that is written out here, or against the pyramid it differs from in one thing."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fpnkit.backbones import wrap
from fpnkit.pyramids import FPN, PAN, BiFPN, FeatureHierarchy, FinestLevel, ImagePyramid, SingleMap, TopDownOnly
from fpnkit.pyramids.bifpn import FUSION_EPS, BiFPNRound, pool
from fpnkit.pyramids.connections import ResidualBlock
from fpnkit.pyramids.image_pyramid import scaled
from fpnkit.structures import LevelSpec

LEVELS = (LevelSpec("c2", 4, 3), LevelSpec("c3", 8, 5), LevelSpec("c4", 16, 6))


def maps() -> dict[str, Tensor]:
    return {level.name: torch.randn(2, level.channels, 40 // level.stride, 48 // level.stride) for level in LEVELS}


def with_biases(pyramid: nn.Module) -> nn.Module:
    """Biases start at zero, where a forgotten one would not be seen."""
    for name, parameter in pyramid.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return pyramid


def give(weights: nn.Module, to: nn.Module, *parts: str) -> None:
    for part in parts:
        getattr(to, part).load_state_dict(getattr(weights, part).state_dict())


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, each in found.items():
        torch.testing.assert_close(each, wanted[name])


class Strided(nn.Module):
    """Two maps of strides 4 and 8."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 3, 5, stride=4, padding=2), nn.Conv2d(3, 5, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.fine(images)
        return [fine, self.coarse(fine)]


def test_residual_connections_start_as_a_plain_fpn_and_then_differ():
    residual, plain = with_biases(FPN(LEVELS, 8, connection="residual")), FPN(LEVELS, 8)
    give(residual, plain, "smooth")
    for name, layers in residual.lateral.items():
        plain.lateral[name].load_state_dict(layers[0].state_dict())
    x = maps()
    assert_equal(residual(x), plain(x))
    for layers in residual.lateral.values():
        nn.init.ones_(layers[1].gain)
    assert not torch.allclose(residual(x)["p2"], plain(x)["p2"])


def test_a_residual_block_adds_a_bottleneck():
    block, x = with_biases(ResidualBlock(8)), torch.randn(1, 8, 3, 4)
    nn.init.constant_(block.gain, 2.0)
    hidden = F.relu(block.conv(F.relu(block.reduce(F.relu(x)))))
    torch.testing.assert_close(block(x), x + 2 * block.expand(hidden))
    assert block.reduce.out_channels == 2


def test_a_norm_stands_behind_every_convolution_which_has_no_bias_then():
    fpn = FPN(LEVELS, 8, norm=nn.BatchNorm2d)
    for layers in (*fpn.lateral.values(), *fpn.smooth.values()):
        assert [type(layer) for layer in layers] == [nn.Conv2d, nn.BatchNorm2d]
        assert layers[0].bias is None


def test_the_finest_level_is_the_p2_of_an_fpn():
    finest, fpn = FinestLevel(LEVELS, 8), with_biases(FPN(LEVELS, 8))
    give(fpn, finest, "lateral")
    finest.smooth.load_state_dict(fpn.smooth["c2"].state_dict())
    x = maps()
    assert_equal(finest(x), {"p2": fpn(x)["p2"]})


def test_a_feature_hierarchy_is_an_fpn_of_each_level_alone():
    hierarchy, x = with_biases(FeatureHierarchy(LEVELS, 8)), maps()
    found = hierarchy(x)
    for level in LEVELS:
        alone = FPN([level], 8, extra_levels=0)
        for layers in ("lateral", "smooth"):
            getattr(alone, layers)[level.name].load_state_dict(getattr(hierarchy, layers)[level.name].state_dict())
        name = "p" + level.name[1:]
        assert_equal({name: found[name]}, alone(x))
    assert torch.equal(found["p5"], found["p4"][..., ::2, ::2])


def test_top_down_only_repeats_the_cells_of_the_coarsest_map():
    pyramid = with_biases(TopDownOnly(LEVELS, 8))
    x = {level.name: torch.randn(1, level.channels, 32 // level.stride, 64 // level.stride) for level in LEVELS}
    found, projected = pyramid(x), pyramid.project(x["c4"])
    for name, factor in (("2", 4), ("3", 2), ("4", 1)):
        repeated = projected.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
        torch.testing.assert_close(found["p" + name], pyramid.smooth["c" + name](repeated))
    other = {**x, "c2": torch.randn_like(x["c2"]), "c3": torch.randn_like(x["c3"])}
    assert_equal(pyramid(other), found)


def slow_pan(pan: PAN, pyramid: dict[str, Tensor]) -> dict[str, Tensor]:
    """Section 3.1 for doubling strides, convolution by convolution."""
    made = {"p2": pyramid["p2"]}
    for finer, name in (("p2", "p3"), ("p3", "p4")):
        down, merge = pan.down[name], pan.merge[name]
        lowered = F.relu(F.conv2d(made[finer], down.weight, down.bias, stride=2, padding=1))
        made[name] = F.relu(F.conv2d(lowered + pyramid[name], merge.weight, merge.bias, padding=1))
    return made


def test_pan_is_a_bottom_up_path_behind_an_fpn():
    pan, fpn = with_biases(PAN(LEVELS, 8)), FPN(LEVELS, 8, extra_levels=0)
    fpn.load_state_dict(pan.fpn.state_dict())
    x = {level.name: torch.randn(1, level.channels, 32 // level.stride, 64 // level.stride) for level in LEVELS}
    wanted = slow_pan(pan, fpn(x))
    assert_equal(pan(x), {**wanted, "p5": wanted["p4"][..., ::2, ::2]})


def test_a_round_of_bifpn_by_hand():
    """Two levels of one cell, one channel, no projections: the middle node, then both outputs."""
    one = BiFPNRound([4, 8], [1, 1], 1).eval()
    nodes = (one.down[0], one.up[0])
    for node in nodes:
        nn.init.dirac_(node.depthwise.weight)
        nn.init.ones_(node.pointwise.weight)
    nodes[0].weights.data = torch.tensor([3.0, 1.0])
    nodes[1].weights.data = torch.tensor([-5.0, 2.0])  # a negative weight counts as none
    fine, coarse = torch.full((1, 1, 2, 2), 10.0), torch.full((1, 1, 1, 1), 2.0)
    norm = 1 / (1 + 1e-3) ** 0.5  # a fresh norm
    wanted_fine = F.silu((3 * fine + coarse) / (4 + FUSION_EPS)) * norm
    wanted_coarse = F.silu(2 * wanted_fine[..., :1, :1] / (2 + FUSION_EPS)) * norm
    found = one([fine, coarse])
    torch.testing.assert_close(found[0], wanted_fine)
    torch.testing.assert_close(found[1], wanted_coarse)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("side", [1, 2, 3, 7, 12])
def test_pooling_rounds_up_and_takes_the_best_around_each_step(step, side):
    feature = torch.randn(1, 2, side, side + 1)
    reach = step // 2
    wanted = [
        [
            feature[..., max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].amax((-2, -1))
            for x in range(0, side + 1, step)
        ]
        for y in range(0, side, step)
    ]
    assert torch.equal(pool(feature, step), torch.stack([torch.stack(row, -1) for row in wanted], -2))


def test_bifpn_makes_its_extra_levels_from_a_projected_top():
    assert [level.stride for level in BiFPN(LEVELS, 8, extra_levels=2).levels] == [4, 8, 16, 32, 64]
    assert not BiFPN(LEVELS, 8, extra_levels=0).extra.state_dict()
    assert BiFPN(LEVELS, 8, extra_levels=1).extra[0].weight.shape == (8, 6, 1, 1)


def test_a_single_map_is_a_1x1_convolution():
    single, x = with_biases(SingleMap(LEVELS, 8, level="c3")), maps()
    wanted = torch.einsum("dc,nchw->ndhw", single.project.weight[..., 0, 0], x["c3"])
    assert_equal(single(x), {"p3": wanted + single.project.bias[:, None, None]})
    assert SingleMap(LEVELS, 8).taken.name == "c4"


@pytest.mark.parametrize("make", [partial(SingleMap, level="c3"), FinestLevel])
def test_a_map_that_stands_for_all_levels_serves_their_strides(make):
    (level,) = make(LEVELS, 8).levels
    assert level.serves == (4, 8, 16, 32)
    assert make(LEVELS, 8, extra_levels=0).levels[0].serves == (4, 8, 16)


@pytest.mark.parametrize("how", ["conv_c5", "conv_p5"])
def test_p6_and_p7_are_strided_convolutions_with_relu_between(how):
    fpn, x = with_biases(FPN(LEVELS, 8, extra_levels=2, extra=how)), maps()
    found = fpn(x)
    p5, p6 = fpn.extra.conv.values()
    wanted = p5(x["c4"] if how == "conv_c5" else found["p4"])
    torch.testing.assert_close(found["p5"], wanted)
    torch.testing.assert_close(found["p6"], p6(F.relu(wanted)))
    assert p5.stride == p6.stride == (2, 2)
    assert [level.stride for level in fpn.levels] == [4, 8, 16, 32, 64]


def test_an_image_pyramid_is_the_backbone_run_by_hand_on_resized_images():
    backbone = wrap(Strided())
    pyramid = with_biases(ImagePyramid(backbone.levels, 8, scales=(0.5, 1.0, 2.0)))
    images = torch.randn(2, 3, 32, 48)
    wanted = {}
    for name, size in (("p2", (64, 96)), ("p3", (32, 48)), ("p4", (16, 24))):
        image = F.interpolate(images, size, mode="bilinear", antialias=size[0] < 32)
        wanted[name] = pyramid.project(backbone(image)["c3"])
    assert_equal(pyramid.features(backbone, images), wanted)
    assert [(level.name, level.stride) for level in pyramid.levels] == [("p2", 4), ("p3", 8), ("p4", 16)]


def test_the_order_of_scales_does_not_matter():
    orders = [ImagePyramid(LEVELS, 8, scales=scales) for scales in ((2.0, 1.0, 0.5), (0.5, 2.0, 1.0))]
    assert orders[0].levels == orders[1].levels
    assert orders[0].scales == orders[1].scales == (2.0, 1.0, 0.5)


def test_scales_move_to_whole_strides():
    pyramid = ImagePyramid(LEVELS, 8, scales=(0.75, 1.0), level="c4")
    assert [level.stride for level in pyramid.levels] == [16, 21]
    assert pyramid.scales == pytest.approx((1.0, 16 / 21))


def test_a_scaled_image_has_as_many_cells_as_its_level_promises():
    for side in range(1, 70):
        image = scaled(torch.zeros(1, 3, side, 5), 16, 21)
        assert -(-image.shape[-2] // 16) == -(-side // 21)


def test_the_image_at_its_own_size_is_not_resampled():
    images = torch.randn(1, 3, 5, 7)
    assert scaled(images, 16, 16) is images


def test_the_names_of_a_pyramid_are_those_of_the_backbone():
    close = [LevelSpec("c2", 4, 3), LevelSpec("c3", 5, 3), LevelSpec("c4", 8, 3)]
    for make in (FPN, PAN, TopDownOnly, FeatureHierarchy, BiFPN):
        assert [level.name for level in make(close, 8).levels] == ["p2", "p3", "p4", "p5"]
    assert SingleMap(close, 8, level="c3").levels[0].name == "p3"


def test_building_a_pyramid_leaves_the_specs_of_the_backbone_alone():
    before = copy.deepcopy(LEVELS)
    for make in (FPN, PAN, BiFPN, TopDownOnly, FeatureHierarchy, FinestLevel, SingleMap, ImagePyramid):
        assert make(LEVELS, 8).in_levels == before
