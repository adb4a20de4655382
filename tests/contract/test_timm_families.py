"""timm networks of every habit under the one contract: channels-last, of one size, of one stride, misdeclared."""

from __future__ import annotations

import copy
import importlib.util
import math
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import timm as timm_library
import torch

from fpnkit import backbones
from fpnkit.backbones import Backbone
from fpnkit.backbones.adapters import Canvas, ChannelsFirst, innermost
from fpnkit.backbones.simple_pyramid import SimplePyramid
from fpnkit.backbones.timm import load_imagenet_weights
from fpnkit.errors import ConfigError

STRIDES = {
    "dla34": (4, 8, 16, 32),  # takes multiples of 32; counts its maps from 1
    "test_mambaout": (4, 8, 16, 32),  # channels-last
    "test_vit": (4, 8, 16, 32),  # one stride, any size
    "eva02_tiny_patch14_224": (7, 14, 28, 56),  # one stride that is no power of two
    "test_vit_relpos": (4, 8, 16, 32),  # one stride, one size
    "levit_128s": (16, 32),  # one size, few strides
    "pit_ti_224": (8, 16, 32),  # one size, convolutions that lose the border
}
SIZES = ((64, 64), (75, 53), (33, 47), (96, 128))
ONE_STRIDE = ("test_vit", "eva02_tiny_patch14_224", "test_vit_relpos")


def tool() -> ModuleType:
    """tools/backbones_table.py as a module."""
    path = Path(__file__).parents[2] / "tools" / "backbones_table.py"
    spec = importlib.util.spec_from_file_location("backbones_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def built(name: str) -> Backbone:
    """In inference mode; not to be changed."""
    return backbones.timm(name).eval()


@pytest.fixture(params=STRIDES)
def backbone(request) -> Backbone:
    return built(request.param)


def frozen(backbone: Backbone) -> set[str]:
    return {name for name, each in innermost(backbone.body).named_parameters() if not each.requires_grad}


@pytest.mark.parametrize(("name", "strides"), STRIDES.items())
def test_strides_are_those_that_are_there(name, strides):
    assert tuple(level.stride for level in built(name).levels) == strides


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
    images = torch.randn(2, 3, 75, 53)
    with torch.no_grad():
        both, alone = backbone(images), [backbone(images[i : i + 1]) for i in range(2)]
    for name, each in both.items():
        wanted = torch.cat([one[name] for one in alone])
        torch.testing.assert_close(each, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("name", STRIDES)
def test_gradients_reach_every_parameter_that_learns(name):
    backbone = copy.deepcopy(built(name)).train()
    sum(each.square().mean() for each in backbone(torch.randn(2, 3, 64, 96)).values()).backward()
    learning = {name: each.grad for name, each in backbone.named_parameters() if each.requires_grad}
    assert [name for name, grad in learning.items() if grad is None] == []


def test_saved_and_loaded_gives_the_same_maps(backbone, request):
    name = request.node.callspec.params["backbone"]
    other = backbones.timm(name).eval()
    other.load_state_dict(backbone.state_dict())
    images = torch.randn(1, 3, 75, 53)
    with torch.no_grad():
        for ours, theirs in zip(backbone(images).values(), other(images).values(), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", [name for name in STRIDES if name not in ONE_STRIDE])
def test_frozen_stages_are_all_that_their_map_depends_on(name):
    backbone = backbones.timm(name, frozen_stages=1, freeze_batch_norm=False).train()
    first, *others = backbone(torch.randn(2, 3, 64, 64)).values()
    assert not first.requires_grad
    assert all(each.requires_grad for each in others)


@pytest.mark.parametrize("name", ONE_STRIDE)
def test_stages_of_a_transformer_are_its_blocks(name):
    backbone = backbones.timm(name, frozen_stages=2)
    roots = {each.removeprefix("model.") for each in frozen(backbone)}
    assert any(each.startswith("patch_embed") for each in roots)
    assert {each.split(".")[1] for each in roots if each.startswith("blocks.")} == {"0", "1"}
    blocks = len(innermost(backbone.body).model.blocks)
    with pytest.raises(ConfigError, match=f"the backbone has {blocks} stages: pass 0 to {blocks}"):
        backbones.timm(name, frozen_stages=blocks + 1)


def test_the_simple_pyramid_learns_above_a_frozen_transformer():
    backbone = backbones.timm("test_vit", frozen_stages=6)
    pyramid = backbone.body.network
    assert {id(each) for each in backbone.parameters() if each.requires_grad} == {
        id(each) for each in pyramid.levels.parameters()
    }


@pytest.mark.parametrize("name", ["dla34", "test_mambaout"])
def test_maps_are_timms_where_it_takes_the_size(name):
    backbone = built(name)
    indices = (2, 3, 4, 5) if name == "dla34" else (0, 1, 2, 3)
    theirs = timm_library.create_model(name, features_only=True, out_indices=indices).eval()
    theirs.load_state_dict(innermost(backbone.body).state_dict())
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for ours, wanted in zip(backbone(images).values(), theirs(images), strict=True):
            torch.testing.assert_close(ours, wanted if name == "dla34" else wanted.permute(0, 3, 1, 2))


def test_adapters_are_only_where_they_are_needed():
    def adapters(name: str) -> list[type]:
        body, found = built(name).body, []
        while body is not innermost(body):
            found.append(type(body))
            body = body.network
        return found

    assert adapters("resnet18") == []
    assert adapters("test_mambaout") == [ChannelsFirst]
    assert adapters("dla34") == [Canvas]
    assert adapters("test_vit") == [Canvas, SimplePyramid]


@pytest.mark.parametrize("name", ["test_mambaout", "test_vit", "dla34"])
def test_imagenet_weights_go_to_the_network_inside(name):
    classifier = timm_library.create_model(name)
    backbone = copy.deepcopy(built(name))
    load_imagenet_weights(backbone, classifier.state_dict())
    loaded = [each for each in innermost(backbone.body).state_dict().values() if each.ndim]
    given = [each for each in classifier.state_dict().values() if each.ndim]
    assert all(torch.equal(a, b) for a, b in zip(loaded, given, strict=False))


def test_a_network_of_one_size_names_the_way_out():
    backbone = built("levit_128s")
    with pytest.raises(ConfigError) as error:
        backbone(torch.zeros(1, 3, 225, 100))
    assert str(error.value) == (
        "levit_128s is built for images of up to 224x224 pixels, got 225x100: "
        "pass image_size=(height, width) of your largest image to fpnkit.backbones.timm"
    )
    larger = backbones.timm("levit_128s", image_size=(225, 100)).eval()
    assert [tuple(each.shape[-2:]) for each in larger(torch.zeros(1, 3, 225, 100)).values()] == [(15, 7), (8, 4)]


def test_a_size_that_cannot_be_built_is_refused():
    with pytest.raises(ConfigError, match="resnet18 cannot be built for images of 300x500: leave image_size out"):
        backbones.timm("resnet18", image_size=(300, 500))


def test_strides_of_a_transformer_can_be_chosen():
    assert [level.stride for level in backbones.timm("test_vit", strides=(8, 16)).levels] == [8, 16]
    with pytest.raises(ConfigError, match=r"test_vit has maps of strides \[4, 8, 16, 32\], not \[64\]"):
        backbones.timm("test_vit", strides=(16, 64))


def test_the_table_tries_a_model_of_every_family():
    models = tool().MODELS
    registered = {family: timm_library.list_models(module=family) for family in models}
    assert all(model in registered[family] for family, model in models.items())


@pytest.mark.slow
@pytest.mark.parametrize("family", tool().MODELS)
def test_every_family_works(family):
    if family == "gemma4_vit":
        pytest.skip("its positions are read from tensor values, which the meta device does not have")
    tool().check(tool().MODELS[family])
