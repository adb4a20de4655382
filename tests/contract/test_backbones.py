"""One contract for every backbone: published levels are what comes out."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from functools import cache

import pytest
import timm as timm_library
import torch
from torch import Tensor, nn

from fpnkit import backbones
from fpnkit.backbones import Backbone, wrap
from fpnkit.backbones.timm import load_imagenet_weights
from fpnkit.errors import CheckpointError, ConfigError, ShapeError
from fpnkit.structures import LevelSpec

FAMILIES = ("resnet18", "tf_efficientnet_lite0", "mobilenetv3_small_100", "regnety_002", "convnext_atto")
CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "dict": lambda maps: {f"stage{i}": each for i, each in enumerate(maps)},
    "OrderedDict": lambda maps: OrderedDict(enumerate(maps)),
}
SIZES = ((64, 64), (32, 96), (75, 53), (33, 47))


class Stages(nn.Module):
    """A network of one's own: a strided convolution a stage, maps in any container."""

    def __init__(self, pack=list, ratios: tuple[int, ...] = (4, 2, 2, 2)) -> None:
        super().__init__()
        widths = [3, *(8 * (i + 1) for i in range(len(ratios)))]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=ratio, padding=1), nn.BatchNorm2d(b), nn.ReLU())
            for a, b, ratio in zip(widths[:-1], widths[1:], ratios, strict=True)
        )
        self.pack = pack

    def forward(self, images: Tensor):
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return self.pack(maps)


class Returns(nn.Module):
    """A body that returns what it was given."""

    def __init__(self, output) -> None:
        super().__init__()
        self.output = output

    def forward(self, images: Tensor):
        return self.output


@cache
def built(name: str, **options) -> Backbone:
    """Not to be changed."""
    return wrap(Stages(CONTAINERS[name])) if name in CONTAINERS else backbones.timm(name, **options)


@pytest.fixture(params=[*FAMILIES, *CONTAINERS])
def backbone(request) -> Backbone:
    return built(request.param).eval()


@pytest.fixture(scope="module")
def resnet18_state() -> dict[str, Tensor]:
    return timm_library.create_model("resnet18").state_dict()


def trainable(backbone: Backbone) -> set[str]:
    return {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}


def statistics(module: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_four_levels_of_the_paper_are_published(backbone):
    assert [level.name for level in backbone.levels] == ["c2", "c3", "c4", "c5"]
    assert [level.stride for level in backbone.levels] == [4, 8, 16, 32]


@pytest.mark.parametrize("size", SIZES)
def test_published_levels_match_outputs(backbone, size):
    with torch.no_grad():
        maps = backbone(torch.randn(2, 3, *size))
    assert list(maps) == [level.name for level in backbone.levels]
    for level in backbone.levels:
        images, channels, *map_size = maps[level.name].shape
        assert (images, channels) == (2, level.channels)
        for pixels, cells in zip(size, map_size, strict=True):
            assert math.floor(pixels / level.stride) <= cells <= math.ceil(pixels / level.stride)


def test_a_batch_of_two_equals_two_singles(backbone):
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        both, alone = backbone(images), [backbone(images[i : i + 1]) for i in range(2)]
    for name, each in both.items():
        wanted = torch.cat([one[name] for one in alone])
        torch.testing.assert_close(each, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=1e-4)


def test_forward_does_not_change_its_input(backbone):
    images = torch.randn(1, 3, 64, 64)
    before = images.clone()
    backbone(images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("freeze_batch_norm", [True, False])
def test_frozen_stages_get_no_gradient_and_the_others_do(name, freeze_batch_norm):
    backbone = backbones.timm(name, frozen_stages=2, freeze_batch_norm=freeze_batch_norm).train()
    maps = backbone(torch.randn(2, 3, 64, 64))
    assert [each.requires_grad for each in maps.values()] == [False, False, True, True]
    (maps["c4"].square().mean() + maps["c5"].square().mean()).backward()
    got = {name for name, parameter in backbone.named_parameters() if parameter.grad is not None}
    assert got
    assert got == trainable(backbone)


@pytest.mark.parametrize("name", FAMILIES)
def test_all_stages_can_be_frozen(name):
    assert not trainable(backbones.timm(name, frozen_stages=4, freeze_batch_norm=False))


@pytest.mark.parametrize("name", FAMILIES)
def test_without_frozen_stages_all_but_norms_learn(name):
    backbone = built(name)
    free = built(name, freeze_batch_norm=False)
    assert trainable(free) == {name for name, _ in free.named_parameters()}
    norms = {
        f"{path}.{name}"
        for path, module in free.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for name, _ in module.named_parameters()
    }
    assert trainable(backbone) == trainable(free) - norms


@pytest.mark.parametrize("name", ["resnet18", "regnety_002"])
def test_frozen_statistics_do_not_move_in_training(name):
    backbone = copy.deepcopy(built(name)).train()
    before = statistics(backbone)
    backbone(torch.randn(2, 3, 64, 64))
    assert same(statistics(backbone), before)


def test_statistics_of_frozen_stages_do_not_move_the_others_do():
    backbone = backbones.timm("resnet18", frozen_stages=1, freeze_batch_norm=False).train()
    body = backbone.body
    frozen, free = statistics(body.layer1), statistics(body.layer2)
    backbone(torch.randn(2, 3, 64, 64))
    assert same(statistics(body.layer1), frozen)
    assert not same(statistics(body.layer2), free)


def test_frozen_parts_stay_in_inference_mode_inside_a_larger_model():
    model = nn.Sequential(backbones.timm("resnet18", frozen_stages=1))
    for mode in (True, False, True):
        model.train(mode)
        body = model[0].body
        assert not body.bn1.training
        assert not body.layer1[0].bn1.training
        assert body.layer2.training == mode


def test_freeze_takes_any_modules():
    backbone = wrap(Stages())
    assert backbone.freeze([backbone.body.stages[0]], batch_norm=False) is backbone
    assert not any(name.startswith("body.stages.0") for name in trainable(backbone))
    assert {name.split(".")[2] for name in trainable(backbone)} == {"1", "2", "3"}


@pytest.mark.parametrize("count", [-1, 5])
def test_more_stages_than_there_are_cannot_be_frozen(count):
    with pytest.raises(ConfigError) as error:
        backbones.timm("resnet18", frozen_stages=count)
    assert str(error.value) == f"frozen_stages is {count}, the backbone has 4 stages: pass 0 to 4"


def test_fewer_levels_can_be_taken():
    levels = backbones.timm("resnet18", strides=(8, 32)).levels
    assert levels == (LevelSpec("c3", 8, 128), LevelSpec("c5", 32, 512))


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(ConfigError, match=r"timm has no model named 'resnet_18': did you mean .*resnet18"):
        backbones.timm("resnet_18")
    with pytest.raises(ConfigError, match=r"no model named 'qqqqqqqq': see timm.list_models\(\)"):
        backbones.timm("qqqqqqqq")


def test_a_stride_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ConfigError) as error:
        backbones.timm("resnet18", strides=(4, 64))
    wanted = "resnet18 has maps of strides [2, 4, 8, 16, 32], not [64]: pass strides=... from these"
    assert str(error.value) == wanted


def test_one_map_need_not_be_in_a_container():
    assert wrap(nn.Conv2d(3, 5, 4, stride=16)).levels == (LevelSpec("c4", 16, 5),)


def test_strides_need_not_double():
    backbone = wrap(Stages(ratios=(3, 3, 5)))
    assert [level.stride for level in backbone.levels] == [3, 9, 43]
    close = wrap(Returns([torch.zeros(1, 2, side, side) for side in (64, 51, 43, 32)]))
    assert [(level.name, level.stride) for level in close.levels] == [("c2", 4), ("c3", 5), ("c4", 6), ("c5", 8)]
    assert list(close(torch.zeros(1, 3, 256, 256))) == ["c2", "c3", "c4", "c5"]


def test_other_input_channels():
    assert wrap(nn.Conv2d(5, 7, 1, stride=4), in_channels=5).levels == (LevelSpec("c2", 4, 7),)


def test_probing_leaves_modes_and_statistics_as_they_were():
    body = Stages().train()
    body.stages[1].eval()
    before = statistics(body)
    wrap(body)
    assert same(statistics(body), before)
    assert body.training
    assert body.stages[0][1].training
    assert not body.stages[1][1].training


@pytest.mark.parametrize(
    ("output", "kind", "message"),
    [
        ([], ConfigError, r"backbone Returns returned no maps: return at least one \(N, C, H, W\) map"),
        ([torch.zeros(1, 9)], ShapeError, r"Returns must return \(N, C, H, W\) maps, one of them is \(1, 9\)"),
        (["c2"], ShapeError, r"Returns must return \(N, C, H, W\) maps, one of them is str"),
        (None, ShapeError, "expected a body that returns a list, tuple or dict of maps, got NoneType"),
        (
            [torch.zeros(1, 8, 8, 8), torch.zeros(1, 8, 64, 64)],
            ShapeError,
            r"maps of strides \[32, 4\]: expected each coarser than the one before; return them finest first",
        ),
        ([torch.zeros(1, 8, 64, 64)] * 2, ShapeError, r"maps of strides \[4, 4\]: expected each coarser"),
    ],
    ids=["nothing", "not 4-D", "not tensors", "no container", "coarse first", "one stride twice"],
)
def test_bodies_that_break_the_contract_are_refused(output, kind, message):
    with pytest.raises(kind, match=message):
        wrap(Returns(output))


def test_imagenet_weights_by_name(resnet18_state):
    backbone = copy.deepcopy(built("resnet18"))
    shuffled = dict(reversed(resnet18_state.items()))
    load_imagenet_weights(backbone, shuffled)
    loaded = backbone.body.state_dict()
    assert all(torch.equal(value, resnet18_state[name]) for name, value in loaded.items() if value.ndim)


def test_imagenet_weights_by_position():
    classifier = timm_library.create_model("convnext_atto")
    backbone = copy.deepcopy(built("convnext_atto")).eval()
    assert "stages_0.blocks.0.gamma" in backbone.body.state_dict()
    assert "stages.0.blocks.0.gamma" in classifier.state_dict()
    load_imagenet_weights(backbone, classifier.state_dict())
    images = torch.randn(1, 3, 64, 64)
    wanted = classifier.eval().forward_intermediates(images, intermediates_only=True)
    for each, other in zip(backbone(images).values(), wanted, strict=True):
        torch.testing.assert_close(each, other)


@pytest.mark.parametrize("change", ["another network", "too few", "empty"])
def test_weights_of_another_network_are_refused_and_nothing_is_loaded(resnet18_state, change):
    given = {
        "another network": lambda: built("regnety_002").body.state_dict(),
        "too few": lambda: {f"x{i}": value for i, value in enumerate(list(resnet18_state.values())[:12])},
        "empty": dict,
    }[change]()
    backbone = copy.deepcopy(built("resnet18"))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"backbone weights do not fit: .* expects shape \(.*\), the file has"):
        load_imagenet_weights(backbone, given)
    assert same(backbone.state_dict(), before)


def test_the_first_tensor_that_does_not_fit_is_named(resnet18_state):
    state = {**resnet18_state, "layer1.0.conv1.weight": torch.zeros(64, 64, 5, 5)}
    with pytest.raises(CheckpointError) as error:
        load_imagenet_weights(copy.deepcopy(built("resnet18")), state)
    assert str(error.value) == (
        "backbone weights do not fit: layer1.0.conv1.weight expects shape (64, 64, 3, 3), the file has shape "
        "(64, 64, 5, 5) there: pass the ImageNet weights of the same network"
    )


def test_thawed_backbone_learns_everywhere() -> None:
    backbone = backbones.timm("resnet18", frozen_stages=1).thaw().train()
    sum(feature.square().mean() for feature in backbone(torch.randn(2, 3, 64, 64)).values()).backward()
    silent = [name for name, each in backbone.named_parameters() if each.grad is None or not each.grad.any()]
    assert all("conv" in name or "bn1" in name for name in silent)  # behind norms that start at zero, first step only
    assert all(module.training for module in backbone.modules())
    assert any("bn2.weight" in name and each.grad.any() for name, each in backbone.named_parameters())
