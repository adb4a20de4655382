"""Eq. 1, and RoIAlign over levels against torchvision."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, roi_align

from fpnkit.errors import ShapeError
from fpnkit.ops.roi import level_number, level_numbers, multi_level_roi_align, roi_levels

STRIDES = [4, 8, 16, 32]
SIZE = 512


def square(side: float) -> list[float]:
    return [10.0, 20.0, 10.0 + side, 20.0 + side]


def some_features(dtype=torch.float32) -> list[Tensor]:
    return [torch.randn(2, 3, SIZE // s, SIZE // s, dtype=dtype, requires_grad=True) for s in STRIDES]


def some_rois(count: int, dtype=torch.float32) -> Tensor:
    """(R, 5) RoIs of all sizes in two images, some of them hanging out, sorted by level."""
    corners = torch.rand(count, 2, dtype=dtype) * SIZE - 20
    stretch = 2 ** (torch.rand(count, 1, dtype=dtype) - 0.5)
    sides = 2 ** (4 + 6 * torch.rand(count, 1, dtype=dtype)) * torch.cat([stretch, 1 / stretch], dim=1)
    image = torch.arange(count, dtype=dtype)[:, None] % 2
    rois = torch.cat([image, corners, corners + sides], dim=1)
    return rois[levels_of(rois).argsort(stable=True)]


def levels_of(rois: Tensor) -> Tensor:
    return roi_levels(rois[:, 1:], STRIDES)


def slow_reference(features, rois, levels, output_size, sampling_ratio, aligned) -> Tensor:
    """RoI by RoI through torchvision's own differentiable op."""
    pooled = [
        roi_align(features[level], roi[None], output_size, 1 / STRIDES[level], sampling_ratio, aligned)
        for roi, level in zip(rois, levels.tolist(), strict=True)
    ]
    return torch.cat(pooled)


@pytest.mark.parametrize(
    ("side", "level"),
    [(111.9, 2), (112, 3), (223.9, 3), (224, 4), (447.9, 4), (448, 5), (895, 5), (896, 5), (5000, 5), (56, 2), (1, 2)],
)
def test_eq_1_by_hand(side, level):
    assert roi_levels(torch.tensor([square(side)]), STRIDES).tolist() == [level - 2]


def test_eq_1_goes_by_area_not_by_side():
    rois = torch.tensor([[0.0, 0.0, 448.0, 112.0], [0.0, 0.0, 56.0, 896.0]])
    assert roi_levels(rois, STRIDES).tolist() == [2, 2]


def test_eq_1_clamps_to_the_levels_there_are():
    rois = torch.tensor([square(1), square(224), square(2000)])
    assert roi_levels(rois, (8, 16)).tolist() == [0, 1, 1]


def test_rois_without_area_go_to_the_lowest_level():
    rois = torch.tensor([[5.0, 5.0, 5.0, 5.0], [9.0, 9.0, 3.0, 12.0]])
    assert roi_levels(rois, STRIDES).tolist() == [0, 0]


def test_levels_of_no_rois():
    assert roi_levels(torch.zeros(2, 0, 4), STRIDES).shape == (2, 0)
    assert roi_levels(torch.zeros(0, 4), STRIDES).dtype == torch.int64


@pytest.mark.parametrize(
    ("strides", "sides", "levels"),
    [
        ((4, 16, 32), [80.0, 150, 300, 600], [0, 0, 1, 2]),  # 16/224 of the sides: 5.7, 10.7, 21.4, 42.9
        ((3, 9, 43), [80.0, 150, 600, 603], [0, 1, 1, 2]),
        ((4, 5, 8), [69.9, 70, 111, 112], [0, 1, 1, 2]),
    ],
)
def test_strides_that_do_not_double_each_have_their_sizes(strides, sides, levels):
    assert roi_levels(torch.tensor([square(side) for side in sides]), strides).tolist() == levels


@pytest.mark.parametrize(("stride", "level"), [(1, 0), (4, 2), (8, 3), (14, 4), (16, 4), (32, 5), (64, 6)])
def test_level_number(stride, level):
    assert level_number(stride) == level


@pytest.mark.parametrize(
    ("strides", "numbers"),
    [([4, 8, 16, 32, 64], [2, 3, 4, 5, 6]), ([3, 9, 43], [2, 3, 5]), ([4, 5, 8], [2, 3, 4]), ([16, 21, 32], [4, 5, 6])],
)
def test_level_numbers_are_all_different(strides, numbers):
    assert level_numbers(strides) == numbers


def test_a_smaller_canonical_size_sends_rois_higher():
    rois = torch.tensor([square(55), square(56), square(112), square(224)])
    assert roi_levels(rois, STRIDES, canonical_size=112).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -float("inf")])
def test_rois_that_are_no_numbers_have_a_level(junk):
    rois = torch.tensor([[junk] * 4, [0.0, 0.0, junk, 5.0], [junk, 1.0, 2.0, 3.0]])
    levels = roi_levels(rois, STRIDES)
    assert ((levels >= 0) & (levels <= 3)).all()


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -float("inf")])
def test_a_coordinate_that_is_no_number_counts_as_zero(junk):
    """torchvision's kernel reads out of bounds there."""
    features = [torch.randn(2, 3, 16, 16, requires_grad=True), torch.randn(2, 3, 8, 8, requires_grad=True)]
    broken = torch.tensor([[0.0, junk, 3.0, 40.0, 30.0], [1.0, junk, junk, junk, junk], [1.0, 2.0, 3.0, 20.0, junk]])
    zeroed = broken.nan_to_num(0.0, 0.0, 0.0)
    levels = torch.tensor([0, 1, 1])

    def pooled_and_grads(rois: Tensor) -> list[Tensor]:
        pooled, _ = multi_level_roi_align(features, [4, 8], rois, levels, 2, 2, True)
        return [pooled, *torch.autograd.grad((pooled * pooled).sum(), features)]

    for ours, wanted in zip(pooled_and_grads(broken), pooled_and_grads(zeroed), strict=True):
        assert ours.isfinite().all()
        assert torch.equal(ours, wanted)


@pytest.mark.parametrize("sampling_ratio", [2, 0])
def test_pooling_matches_torchvision_forward_and_backward(sampling_ratio):
    rois = some_rois(60)
    levels = levels_of(rois)
    assert set(levels.tolist()) == {0, 1, 2, 3}
    ours = some_features()
    theirs = [each.detach().clone().requires_grad_() for each in ours]

    pooled, _ = multi_level_roi_align(ours, STRIDES, rois, levels, 7, sampling_ratio, False)
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, sampling_ratio)
    order = torch.cat([torch.where(rois[:, 0] == image)[0] for image in (0, 1)])
    boxes = [rois[rois[:, 0] == image, 1:] for image in (0, 1)]
    wanted = pool(OrderedDict((str(i), each) for i, each in enumerate(theirs)), boxes, [(SIZE, SIZE)] * 2)
    torch.testing.assert_close(pooled[order], wanted)

    weight = torch.randn_like(pooled)
    (pooled * weight).sum().backward()
    (wanted * weight[order]).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_pooling_matches_one_roi_at_a_time(aligned, sampling_ratio):
    rois = some_rois(25, torch.float64)
    assert set(levels_of(rois).tolist()) == {0, 1, 2, 3}
    ours = some_features(torch.float64)
    theirs = [each.detach().clone().requires_grad_() for each in ours]
    settings = (levels_of(rois), 3, sampling_ratio, aligned)

    pooled, _ = multi_level_roi_align(ours, STRIDES, rois, *settings)
    wanted = slow_reference(theirs, rois, *settings)
    torch.testing.assert_close(pooled, wanted)

    weight = torch.randn_like(pooled)
    (pooled * weight).sum().backward()
    (wanted * weight).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_gradient_matches_finite_differences():
    features = [torch.randn(1, 2, side, side, dtype=torch.float64, requires_grad=True) for side in (4, 2)]
    rois = torch.tensor([[0, 1.0, 2.0, 9.0, 12.0], [0, 0.0, 3.0, 16.0, 11.0]], dtype=torch.float64)

    def pool(*maps: Tensor) -> Tensor:
        return multi_level_roi_align(list(maps), [4, 8], rois, torch.tensor([0, 1]), 2, 2, True)[0]

    assert torch.autograd.gradcheck(pool, features)


def test_each_roi_reads_its_own_level():
    features = [torch.full((1, 1, 8, 8), float(level)) for level in range(4)]
    levels = torch.tensor([0, 0, 1, 2, 2, 3])
    rois = torch.tensor([[0.0, 4.0, 4.0, 12.0, 12.0]]).expand(6, 5)
    pooled, _ = multi_level_roi_align(features, STRIDES, rois, levels, 2, 2, True)
    assert pooled[:, 0, 0, 0].tolist() == levels.tolist()


def test_the_boxes_are_returned():
    rois = some_rois(9)
    _, returned = multi_level_roi_align(some_features(), STRIDES, rois, levels_of(rois), 2, 2, True)
    assert torch.equal(returned, rois[:, 1:])


def test_rois_that_are_not_sorted_by_level_are_refused():
    features = [torch.zeros(1, 1, 8, 8) for _ in range(2)]
    with pytest.raises(ShapeError, match="sorted by level"):
        multi_level_roi_align(features, [4, 8], torch.zeros(2, 5), torch.tensor([1, 0]), 2, 2, True)


def test_each_roi_reads_its_own_image():
    features = [torch.tensor([10.0, 20.0]).reshape(2, 1, 1, 1).expand(2, 1, 8, 8)]
    rois = torch.tensor([[1.0, 4, 4, 12, 12], [0.0, 4, 4, 12, 12], [1.0, 4, 4, 12, 12]])
    pooled, _ = multi_level_roi_align(features, [4], rois, torch.zeros(3, dtype=torch.int64), 2, 2, True)
    assert pooled[:, 0, 0, 0].tolist() == [20, 10, 20]


def test_declared_strides_are_used_not_map_sizes():
    ramp = torch.arange(10.0).expand(1, 1, 10, 10)
    roi = torch.tensor([[0.0, 8.0, 8.0, 24.0, 24.0]])
    level = torch.zeros(1, dtype=torch.int64)
    at = [multi_level_roi_align([ramp], [s], roi, level, 1, 2, True)[0].item() for s in (4, 8)]
    assert at == pytest.approx([3.5, 1.5])


def test_no_rois():
    features = some_features()
    nothing = torch.zeros(0, dtype=torch.int64)
    pooled, _ = multi_level_roi_align(features, STRIDES, torch.zeros(0, 5), nothing, 7, 2, True)
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert all(each.grad is not None and not each.grad.any() for each in features)


def test_a_level_without_rois_gets_a_zero_gradient():
    features = some_features()
    rois = torch.tensor([[0.0, 0.0, 0.0, 30.0, 30.0]])
    multi_level_roi_align(features, STRIDES, rois, levels_of(rois), 7, 2, True)[0].sum().backward()
    assert [bool(each.grad.any()) for each in features] == [True, False, False, False]


def test_pooling_declares_its_output_and_gradient_to_compilers():
    features = [torch.randn(1, 2, side, side, requires_grad=True) for side in (8, 4)]
    rois = torch.tensor([[0.0, 0.0, 0.0, 30.0, 30.0], [0.0, 1.0, 2.0, 9.0, 12.0]])
    inputs = (features, [4, 8], rois.flip(0), torch.tensor([0, 1]), 3, 2, True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(multi_level_roi_align, inputs, test_utils=checks)
