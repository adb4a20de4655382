"""Which candidate learns which object, by hand."""

from __future__ import annotations

import pytest
import torch

from fpnkit.ops.matching import Matches, chance, match, sample

OBJECT = [0.0, 0.0, 10.0, 10.0]


def matched(candidates, objects, *, valid=None, crowd=None, low_quality=False, positive_iou=0.7, negative_iou=0.3):
    """Match in one image."""
    count = len(objects)
    return match(
        torch.tensor(candidates).reshape(-1, 4),
        torch.tensor(objects).reshape(1, -1, 4),
        torch.tensor([[True] * count if valid is None else valid], dtype=torch.bool),
        torch.tensor([[False] * count if crowd is None else crowd], dtype=torch.bool),
        positive_iou=positive_iou,
        negative_iou=negative_iou,
        allow_low_quality_matches=low_quality,
    )


def matches(positive: list[bool], negative: list[bool]) -> Matches:
    return Matches(torch.zeros(1, len(positive), dtype=torch.int64), torch.tensor([positive]), torch.tensor([negative]))


def test_thresholds():
    heights = [10.0, 7.0, 6.9, 3.0, 2.9, 0.0]
    found = matched([[0.0, 0.0, 10.0, height] for height in heights], [OBJECT])
    assert found.positive.tolist() == [[True, True, False, False, False, False]]
    assert found.negative.tolist() == [[False, False, False, False, True, True]]


def test_target_is_the_object_of_most_overlap():
    found = matched([[0.0, 0.0, 10.0, 9.0], [20.0, 0.0, 30.0, 9.0]], [OBJECT, [20.0, 0.0, 30.0, 10.0]])
    assert found.target.tolist() == [[0, 1]]


def test_low_quality_matches_make_the_best_candidates_of_an_object_positive():
    candidates = [[0.0, 0.0, 10.0, 4.0], [0.0, 6.0, 10.0, 10.0], [0.0, 0.0, 10.0, 2.0]]
    assert not matched(candidates, [OBJECT]).positive.any()
    found = matched(candidates, [OBJECT], low_quality=True)
    assert found.positive.tolist() == [[True, True, False]]
    assert found.negative.tolist() == [[False, False, True]]


def test_a_low_quality_match_turns_a_negative_into_a_positive():
    found = matched([[0.0, 0.0, 10.0, 1.0]], [OBJECT], low_quality=True)
    assert found.positive.tolist() == [[True]]
    assert found.negative.tolist() == [[False]]


def test_a_low_quality_match_needs_some_overlap():
    found = matched([[50.0, 50.0, 60.0, 60.0]], [OBJECT], low_quality=True)
    assert found.positive.tolist() == [[False]]
    assert found.negative.tolist() == [[True]]


def test_low_quality_matches_leave_invalid_objects_and_crowds_alone():
    found = matched([OBJECT, OBJECT], [OBJECT, OBJECT], valid=[False, True], crowd=[False, True], low_quality=True)
    assert not found.positive.any()


def test_a_crowd_is_neither_right_nor_wrong():
    candidates = [OBJECT, [0.0, 0.0, 20.0, 10.0], [0.0, 0.0, 21.0, 10.0]]
    found = matched(candidates, [OBJECT], crowd=[True])
    assert not found.positive.any()
    assert found.negative.tolist() == [[False, False, True]]


def test_a_crowd_does_not_hide_an_object_in_it():
    found = matched([OBJECT], [[0.0, 0.0, 100.0, 100.0], OBJECT], crowd=[True, False])
    assert found.positive.tolist() == [[True]]
    assert found.target.tolist() == [[1]]


def test_invalid_objects_are_as_if_not_there():
    found = matched([OBJECT], [OBJECT, [float("nan")] * 4], valid=[False, False])
    assert not found.positive.any()
    assert found.negative.all()


def test_an_object_of_zero_size_matches_nothing():
    found = matched([OBJECT, [5.0, 5.0, 5.0, 5.0]], [[5.0, 5.0, 5.0, 5.0]], low_quality=True)
    assert not found.positive.any()
    assert found.negative.all()


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize(("images", "candidates", "objects"), [(2, 3, 0), (0, 3, 2), (2, 0, 2), (0, 0, 0)])
def test_nothing_to_match(images, candidates, objects, low_quality):
    flags = torch.zeros(images, objects, dtype=torch.bool)
    thresholds = {"positive_iou": 0.7, "negative_iou": 0.3}
    found = match(
        torch.zeros(candidates, 4),
        torch.zeros(images, objects, 4),
        ~flags,
        flags,
        allow_low_quality_matches=low_quality,
        **thresholds,
    )
    assert found.target.shape == found.positive.shape == found.negative.shape == (images, candidates)
    assert not found.positive.any()
    assert found.negative.all()


def test_candidates_may_differ_by_image():
    candidates = torch.tensor([[OBJECT], [[50.0, 50.0, 60.0, 60.0]]])
    flags = torch.zeros(2, 1, dtype=torch.bool)
    objects = torch.tensor([[OBJECT], [OBJECT]])
    found = match(
        candidates, objects, ~flags, flags, positive_iou=0.5, negative_iou=0.5, allow_low_quality_matches=False
    )
    assert found.positive.tolist() == [[True], [False]]
    assert found.negative.tolist() == [[False], [True]]


@pytest.mark.parametrize(
    ("positives", "negatives", "drawn_positives", "drawn_negatives"),
    [(100, 100, 5, 15), (3, 100, 3, 17), (0, 100, 0, 20), (100, 4, 5, 4), (2, 1, 2, 1), (0, 0, 0, 0)],
)
def test_sampling_counts(positives, negatives, drawn_positives, drawn_negatives):
    ignored = 10
    positive = [True] * positives + [False] * (negatives + ignored)
    negative = [False] * positives + [True] * negatives + [False] * ignored
    drawn = sample(matches(positive, negative), count=20, positive_fraction=0.25)
    assert drawn.positive.sum() == drawn_positives
    assert drawn.valid.sum() == drawn_positives + drawn_negatives


def test_samples_are_distinct_and_of_their_kind():
    positive, negative = [True] * 20 + [False] * 40, [False] * 20 + [True] * 30 + [False] * 10
    drawn = sample(matches(positive, negative), count=32, positive_fraction=0.5)
    chosen = drawn.index[0][drawn.valid[0]].tolist()
    assert len(set(chosen)) == len(chosen) == 32
    assert all(positive[i] for i in drawn.index[0][drawn.positive[0]].tolist())
    assert all(negative[i] for i in drawn.index[0][drawn.valid[0] & ~drawn.positive[0]].tolist())
    assert drawn.positive[0, :16].all()


def test_padding_of_samples_is_safe_to_gather_with():
    drawn = sample(matches([True, False, False], [False, False, True]), count=10, positive_fraction=0.5)
    assert drawn.valid.sum() == 2
    assert ((drawn.index >= 0) & (drawn.index < 3)).all()
    assert (drawn.positive & ~drawn.valid).sum() == 0


def test_sampling_follows_the_torch_seed():
    free = matches([True] * 500, [False] * 500)
    first = sample(free, count=20, positive_fraction=1.0).index
    torch.manual_seed(0)
    again = sample(free, count=20, positive_fraction=1.0).index
    other = sample(free, count=20, positive_fraction=1.0).index
    torch.manual_seed(0)
    assert torch.equal(sample(free, count=20, positive_fraction=1.0).index, again)
    assert not torch.equal(again, other)
    assert first.shape == again.shape


def test_every_candidate_can_be_drawn():
    free = matches([True] * 10, [False] * 10)
    drawn = torch.cat([sample(free, count=2, positive_fraction=1.0).index[0] for _ in range(100)])
    assert set(drawn.tolist()) == set(range(10))


@pytest.mark.parametrize(("images", "candidates"), [(0, 5), (2, 0)])
def test_sampling_from_nothing(images, candidates):
    flags = torch.zeros(images, candidates, dtype=torch.bool)
    drawn = sample(Matches(flags.long(), flags, ~flags), count=4, positive_fraction=0.5)
    assert drawn.index.shape == drawn.valid.shape == drawn.positive.shape
    assert drawn.index.shape[0] == images
    assert not drawn.valid.any()


def test_chance_is_even_and_depends_on_seed_and_place_alone():
    seeds = torch.tensor([0, 1, 2**32 - 1, 12345])
    dice = chance(seeds, 100_000)
    torch.testing.assert_close(chance(seeds[2:3], 100_000), dice[2:3])
    torch.testing.assert_close(chance(seeds, 500), dice[:, :500])
    assert 0 <= dice.min() < dice.max() < 1
    for row in dice:
        counts = torch.histc(row, bins=20, min=0, max=1)
        assert (counts / 5000 - 1).abs().max() < 0.06
    assert torch.corrcoef(dice).fill_diagonal_(0).abs().max() < 0.02
    assert torch.corrcoef(torch.stack([dice[1, :-1], dice[1, 1:]]))[0, 1].abs() < 0.02


def test_samples_of_an_image_do_not_depend_on_its_batch():
    positive = torch.rand(3, 400) < 0.1
    two = Matches(torch.zeros(3, 400, dtype=torch.int64), positive, ~positive)
    seeds = torch.tensor([5, 6, 7])
    whole = sample(two, count=32, positive_fraction=0.25, seeds=seeds)
    for row in range(3):
        one = Matches(*(each[row : row + 1] for each in (two.target, two.positive, two.negative)))
        alone = sample(one, count=32, positive_fraction=0.25, seeds=seeds[row : row + 1])
        assert alone.index[alone.valid].tolist() == whole.index[row][whole.valid[row]].tolist()
