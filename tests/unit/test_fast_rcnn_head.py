"""Which level of the pyramid the RoI head reads, and what it says about it."""

from __future__ import annotations

import math

import pytest
import torch

from fpnkit.errors import ConfigError
from fpnkit.heads import FastRCNNConfig, FastRCNNHead, Postprocess
from fpnkit.pyramids import SingleMap
from fpnkit.structures import LevelSpec, Proposals

SIDES = [1.0, 20, 55, 56, 80, 111, 112, 150, 223, 224, 300, 447, 448, 800, 895, 896, 2000]


def head(*strides: int, config: FastRCNNConfig | None = None, levels: list[LevelSpec] | None = None) -> FastRCNNHead:
    levels = levels or [LevelSpec(f"p{2 + i}", stride, 2) for i, stride in enumerate(strides)]
    return FastRCNNHead(levels, 3, config=config or FastRCNNConfig(hidden=4))


def squares(sides: list[float]) -> torch.Tensor:
    return torch.tensor([[5.0, 7.0, 5.0 + side, 7.0 + side] for side in sides])


def features(one: FastRCNNHead, side: int = 128) -> dict[str, torch.Tensor]:
    return {level.name: torch.randn(1, 2, -(-side // level.stride), -(-side // level.stride)) for level in one.levels}


def test_with_the_strides_of_the_paper_the_level_is_that_of_eq_1():
    one = head(4, 8, 16, 32)
    by_hand = [min(max(math.floor(4 + math.log2(side / 224) + 1e-6), 2), 5) - 2 for side in SIDES]
    assert one.assign_levels(squares(SIDES)).tolist() == by_hand
    sides = 2 ** (12 * torch.rand(500, 2))
    rois = torch.cat([torch.zeros(500, 2), sides], dim=1)
    literal = torch.floor(4 + torch.log2(sides.prod(dim=1).sqrt() / 224) + 1e-6).clamp(2, 5)
    assert torch.equal(one.assign_levels(rois), literal.long() - 2)


def test_p6_is_left_to_the_rpn():
    assert [level.name for level in head(4, 8, 16, 32, 64).levels] == ["p2", "p3", "p4", "p5"]


@pytest.mark.parametrize(
    ("strides", "places"),
    [
        ((4, 16, 32), [0, 0, 1, 2]),  # 16/224 of the sides: 5.7, 10.7, 21.4, 42.9
        ((3, 9, 43), [0, 1, 1, 1]),
        ((8, 32), [0, 0, 0, 1]),
    ],
)
def test_strides_that_do_not_double_get_the_coarsest_level_that_eq_1_allows(strides, places):
    one, sides = head(*strides), [80.0, 150, 300, 600]
    assert one.assign_levels(squares(sides)).tolist() == places
    assert one.assign_levels(squares([1.0, 5000])).tolist() == [0, len(strides) - 1]


def test_one_map_that_serves_all_strides_gets_every_roi():
    one = head(levels=[LevelSpec("p4", 16, 2, serves=(4, 8, 16, 32, 64))])
    assert one.assign_levels(squares(SIDES)).unique().tolist() == [0]


def test_a_level_gets_the_rois_of_all_strides_that_it_serves():
    one = head(levels=[LevelSpec("p2", 4, 2), LevelSpec("p4", 16, 2, serves=(8, 16, 32))])
    assert one.assign_levels(squares([80.0, 150, 300, 600])).tolist() == [0, 1, 1, 1]


def test_a_smaller_canonical_size_shifts_rois_up_by_one_level():
    half = FastRCNNConfig(hidden=4, canonical_size=112)
    shifted = head(4, 8, 16, 32, config=half).assign_levels(squares(SIDES))
    as_twice_as_large = head(4, 8, 16, 32).assign_levels(squares([2 * side for side in SIDES]))
    assert torch.equal(shifted, as_twice_as_large)
    assert head(4, 8, 16, 32, config=half).assign_levels(squares([55.0, 56, 112, 224])).tolist() == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="expects a canonical_size above 0, got 0"):
        FastRCNNConfig(canonical_size=0)


@pytest.mark.parametrize(
    ("names", "strides"),
    [("p2 p3 p4 p5", (4, 8, 16, 32)), ("p2 p3 p5", (3, 9, 43)), ("p2 p4 p5", (4, 16, 32)), ("p2 p3 p4", (4, 5, 8))],
)
def test_the_numbers_of_levels_are_those_of_their_names(names, strides):
    levels = [LevelSpec(name, stride, 2) for name, stride in zip(names.split(), strides, strict=True)]
    one = head(levels=levels)
    rois = squares(SIDES)
    *_, numbers = one(features(one), rois[None])
    wanted = [int(levels[place].name[1:]) for place in one.assign_levels(rois).tolist()]
    assert numbers[0].tolist() == wanted


def test_a_single_map_keeps_the_number_of_its_name():
    close = [LevelSpec("c2", 4, 2), LevelSpec("c3", 5, 2), LevelSpec("c4", 8, 2)]
    one = head(levels=list(SingleMap(close, 2, level="c3").levels))
    *_, numbers = one(features(one), squares(SIDES)[None])
    assert numbers.unique().tolist() == [3]


def test_levels_without_a_number_are_counted_by_their_strides():
    one = head(levels=[LevelSpec("fine", 4, 2), LevelSpec("coarse", 16, 2)])
    *_, numbers = one(features(one), squares([10.0, 500])[None])
    assert numbers.tolist() == [[2, 4]]


@torch.no_grad()
def test_predictions_come_in_the_order_of_the_rois():
    one = head(4, 8, 16, 32).eval()
    maps, rois, order = features(one, 1024), squares([80.0, 150, 300, 600, 90]), torch.tensor([3, 0, 4, 2, 1])
    for straight, mixed in zip(one(maps, rois[None]), one(maps, rois[None, order]), strict=True):
        assert straight.float().std() > 0
        torch.testing.assert_close(mixed, straight[:, order])


def test_detections_say_the_level_that_their_roi_was_read_from():
    """Maps of zeros but for one level: only RoIs of that level see anything."""
    one = head(4, 8, 16, 32).eval()
    torch.nn.init.normal_(one.scores.weight, std=1.0)
    maps = {name: 0 * each for name, each in features(one, 1024).items()}
    maps["p3"] += torch.rand_like(maps["p3"])
    rois = squares([80.0, 150, 300, 600])
    logits, _, numbers = one(maps, rois[None])
    assert numbers.tolist() == [[2, 3, 4, 5]]
    assert [bool(each.any()) for each in logits[0]] == [False, True, False, False]
    given = Proposals(rois[None], torch.zeros(1, 4), torch.tensor([[False, True, False, True]]))
    found = one.detect(maps, given, torch.tensor([[1024.0, 1024.0]]), Postprocess(min_score=0.0))[0].unpadded()
    assert set(found.levels.tolist()) == {3, 5}
    assert (found.levels[found.boxes_xyxy[:, 2] > 300] == 5).all()
    assert (found.levels[found.boxes_xyxy[:, 2] < 300] == 3).all()


@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (3, 9, 43)])
@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -float("inf")])
def test_boxes_that_are_no_numbers_do_not_crash_nor_disturb_the_others(strides, junk):
    one = head(*strides)
    maps = {name: each.requires_grad_() for name, each in features(one).items()}
    rois = torch.tensor([[[4.0, 4.0, 60.0, 70.0], [junk] * 4, [3.0, junk, 50.0, 50.0]]])
    logits, deltas, _ = one(maps, rois)
    alone, *_ = one(maps, rois[:, :1])
    torch.testing.assert_close(logits[:, :1], alone)
    assert logits.isfinite().all()
    (logits.sum() + deltas.sum()).backward()
    assert all(each.grad.isfinite().all() for each in maps.values())
