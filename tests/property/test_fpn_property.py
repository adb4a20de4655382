"""What holds for the pyramid of every number of levels, strides, widths and map sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fpnkit.errors import ConfigError, ShapeError
from fpnkit.pyramids import FPN
from fpnkit.pyramids.extra import subsample
from fpnkit.pyramids.fpn import resize
from fpnkit.structures import LevelSpec

LEVELS = (LevelSpec("c2", 4, 3), LevelSpec("c3", 8, 5))


@st.composite
def pyramids(draw):
    """An FPN of 1 to 5 levels with random biases, and two sets of bottom-up maps."""
    strides = sorted(draw(st.sets(st.integers(1, 40), min_size=1, max_size=5)))
    levels = [LevelSpec(f"c{2 + i}", stride, draw(st.integers(1, 4))) for i, stride in enumerate(strides)]
    height, width, images = draw(st.integers(1, 90)), draw(st.integers(1, 90)), draw(st.integers(1, 2))
    torch.manual_seed(draw(st.integers(0, 1000)))
    fpn = FPN(levels, draw(st.integers(1, 4)), extra_levels=draw(st.integers(0, 2))).double()
    for name, parameter in fpn.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    sizes = {level.name: (-(-height // level.stride), -(-width // level.stride)) for level in levels}
    x, y = (
        {level.name: torch.randn(images, level.channels, *sizes[level.name]).double() for level in levels}
        for _ in range(2)
    )
    return fpn, x, y


@given(pyramids())
def test_specs_match_outputs(case):
    fpn, x, _ = case
    out = fpn(x)
    assert list(out) == [level.name for level in fpn.levels]
    assert [each.shape[1] for each in out.values()] == [level.channels for level in fpn.levels]
    for level, pyramid_level in zip(fpn.in_levels, fpn.levels, strict=False):
        assert pyramid_level.name == "p" + level.name[1:]
        assert pyramid_level.stride == level.stride
        assert out[pyramid_level.name].shape[-2:] == x[level.name].shape[-2:]


@given(pyramids())
def test_extra_levels_are_every_second_cell_of_the_level_below(case):
    fpn, x, _ = case
    out = list(fpn(x).values())
    for i in range(len(fpn.in_levels), len(fpn.levels)):
        assert torch.equal(out[i], out[i - 1][..., ::2, ::2])
        assert fpn.levels[i].stride == 2 * fpn.levels[i - 1].stride


@given(pyramids())
def test_the_extra_layers_have_no_nonlinearity(case):
    fpn, x, y = case
    both, nothing = {name: x[name] + y[name] for name in x}, {name: 0 * x[name] for name in x}
    f_both, f_x, f_y, f_0 = fpn(both), fpn(x), fpn(y), fpn(nothing)
    for name in f_x:
        torch.testing.assert_close(f_both[name] - f_0[name], f_x[name] - f_0[name] + f_y[name] - f_0[name])


@given(pyramids())
@settings(max_examples=25)
def test_gradients_reach_every_parameter_and_every_map(case):
    fpn, x, _ = case
    maps = {name: each.requires_grad_() for name, each in x.items()}
    sum((out * torch.randn_like(out)).sum() for out in fpn(maps).values()).backward()
    for name, each in [*fpn.named_parameters(), *maps.items()]:
        assert each.grad is not None, name
        assert each.grad.any(), name


@given(pyramids())
@settings(max_examples=25)
def test_context_flows_down_and_not_up(case):
    fpn, x, _ = case
    names = [level.name for level in fpn.in_levels]
    maps = {name: each.requires_grad_() for name, each in x.items()}
    out = fpn(maps)
    finest, coarsest = out[fpn.levels[0].name], out[fpn.levels[len(names) - 1].name]
    below = torch.autograd.grad((finest * torch.randn_like(finest)).sum(), maps[names[-1]], retain_graph=True)
    assert below[0].any()
    above = torch.autograd.grad(coarsest.sum(), [maps[name] for name in names], allow_unused=True)
    assert [each is not None for each in above] == [False] * (len(names) - 1) + [True]


@given(pyramids())
@settings(max_examples=25)
def test_input_is_not_changed_and_calls_repeat(case):
    fpn, x, _ = case
    before = {name: each.clone() for name, each in x.items()}
    first, second = fpn(x), fpn(x)
    assert all(torch.equal(x[name], before[name]) for name in before)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_top_down_path_by_hand():
    """Width 1, laterals and 3x3 kernels that pass their input on: P_k = C_k + upsampled P_(k+1)."""
    fpn = FPN([LevelSpec("c2", 4, 1), LevelSpec("c3", 8, 1)], 1)
    for layer in fpn.lateral.values():
        torch.nn.init.ones_(layer.weight)
    for layer in fpn.smooth.values():
        torch.nn.init.dirac_(layer.weight)
    c2, c3 = torch.arange(8.0).reshape(1, 1, 2, 4), torch.tensor([[[[100.0, 200.0]]]])
    out = fpn({"c2": c2, "c3": c3})
    assert out["p2"].tolist() == [[[[100, 101, 202, 203], [104, 105, 206, 207]]]]
    assert out["p3"].tolist() == [[[[100, 200]]]]
    assert out["p4"].tolist() == [[[[100]]]]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 7)])
def test_upsampling_by_two_repeats_every_cell(size):
    coarse = torch.randn(1, 2, *size)
    like = torch.zeros(1, 9, 2 * size[0], 2 * size[1])
    assert torch.equal(resize(coarse, like=like), coarse.repeat_interleave(2, -1).repeat_interleave(2, -2))


@pytest.mark.parametrize(("size", "half"), [((1, 1), (1, 1)), ((4, 5), (2, 3)), ((7, 2), (4, 1))])
def test_subsampling_rounds_up(size, half):
    assert subsample(torch.zeros(1, 1, *size)).shape[-2:] == half


def maps(**changes: Tensor) -> dict[str, Tensor]:
    return {"c2": torch.zeros(1, 3, 8, 8), "c3": torch.zeros(1, 5, 4, 4), **changes}


def test_a_missing_map_is_named():
    with pytest.raises(ShapeError) as error:
        FPN(LEVELS, 4)({"c2": torch.zeros(1, 3, 8, 8)})
    assert str(error.value) == "FPN expects a map c3, got ['c2']: pass the backbone's whole output"


def test_other_channels_than_promised_are_refused():
    with pytest.raises(ShapeError) as error:
        FPN(LEVELS, 4)(maps(c3=torch.zeros(1, 7, 4, 4)))
    wanted = "pyramid level p3 expects 5 channels, backbone level c3 has 7: pass backbone.levels to FPN(...)"
    assert str(error.value) == wanted


@pytest.mark.parametrize("levels", [(), LEVELS[::-1], (LEVELS[0], LEVELS[0])], ids=["none", "coarse first", "twice"])
def test_levels_must_go_from_fine_to_coarse(levels):
    strides = [level.stride for level in levels]
    with pytest.raises(ConfigError) as error:
        FPN(levels)
    assert str(error.value) == f"FPN expects levels from fine to coarse, got strides {strides}: pass backbone.levels"


def test_extra_levels_need_a_number_to_count_on_from():
    odd = [LevelSpec("top", 32, 4)]
    assert [level.name for level in FPN(odd, 4, extra_levels=0).levels] == ["top"]
    with pytest.raises(ConfigError, match=r"expects a name like c5, got 'top': name the level so, or pass extra_level"):
        FPN(odd, 4)
    with pytest.raises(ConfigError, match="a pyramid expects 0 or more extra_levels, got -1"):
        FPN(LEVELS, 4, extra_levels=-1)
