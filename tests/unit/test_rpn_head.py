"""The RPN head where levels serve several anchor sizes, and where they do not share it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from fpnkit.errors import ConfigError
from fpnkit.heads import RPNConfig, RPNHead
from fpnkit.ops.boxes import area
from fpnkit.structures import LevelSpec, Targets

ALL = LevelSpec("p4", 16, 2, serves=(4, 8, 16, 32, 64))
PLAIN = (LevelSpec("p2", 4, 4), LevelSpec("p3", 8, 4))
CONFIG = RPNConfig(per_level=20, proposals=15)


def features(*levels: LevelSpec, size: tuple[int, int] = (64, 96)) -> dict[str, torch.Tensor]:
    return {each.name: torch.randn(2, each.channels, *(side // each.stride for side in size)) for each in levels}


def unshared_copy(shared: RPNHead) -> RPNHead:
    """A head with weights of its own on every level, all of them the shared ones."""
    head = RPNHead(shared.levels, replace(shared.config, shared=False))
    for part in ("conv", "objectness", "deltas"):
        for layer in getattr(head, part).values():
            layer.load_state_dict(getattr(shared, part).state_dict())
    return head


def test_a_level_that_serves_several_strides_has_the_anchors_of_all():
    head = RPNHead([ALL])
    assert head.anchor_sizes == {"p4": (32, 64, 128, 256, 512)}
    anchors = head.anchors(features(ALL), (64, 96))
    assert [len(each) for each in anchors] == [4 * 6 * 3] * 5
    for each, size in zip(anchors, (32, 64, 128, 256, 512), strict=True):
        torch.testing.assert_close(area(each).sqrt(), torch.full((72,), float(size)))
        centres = (each[::3, :2] + each[::3, 2:]) / 2  # of all sizes in the middle of the map's own cells
        torch.testing.assert_close(centres[[0, 7]], torch.tensor([[8.0, 8.0], [24.0, 24.0]]))


def test_logits_and_deltas_of_a_group_belong_to_anchors_of_its_size():
    """A head whose output channels give their own number."""
    head = RPNHead([ALL])
    nn.init.zeros_(head.objectness.weight)
    nn.init.zeros_(head.deltas.weight)
    with torch.no_grad():
        head.objectness.bias.copy_(torch.arange(15.0))
        head.deltas.bias.copy_(torch.arange(60.0))
    maps = features(ALL)
    logits, deltas = head(maps)
    anchors = head.anchors(maps, (64, 96))
    for group, (scores, shifts, boxes) in enumerate(zip(logits, deltas, anchors, strict=True)):
        assert scores.shape == (2, len(boxes))
        assert shifts.shape == (2, len(boxes), 4)
        assert area(boxes[0]).sqrt().item() == pytest.approx(32 * 2**group)
        for ratio in range(3):
            channel = 3 * group + ratio
            assert (scores[:, ratio::3] == channel).all()
            assert (shifts[:, ratio::3] == torch.arange(4.0) + 4 * channel).all()


def test_a_group_learns_the_objects_of_its_size():
    """Only the channels of the 64-pixel anchors get a gradient for an object of 64 pixels."""
    head = RPNHead([ALL], RPNConfig(samples=2, positive_fraction=1.0))
    maps = features(ALL)
    logits, deltas = head(maps)
    box = torch.tensor([[[24.0, 8.0, 88.0, 72.0]]]).expand(2, 1, 4)
    yes = torch.ones(2, 1, dtype=torch.bool)
    targets = Targets(box, torch.zeros(2, 1, dtype=torch.int64), yes, ~yes)
    head.losses(logits, deltas, head.anchors(maps, (64, 96)), targets)["rpn_box"].backward()
    touched = head.deltas.weight.grad.reshape(5, 3, 4, -1).abs().amax((1, 2, 3)) > 0
    assert touched.tolist() == [False, True, False, False, False]


def test_proposals_are_kept_and_suppressed_by_anchor_size():
    """Two sizes that predict one box: neither suppresses the other, as on two levels."""
    level = LevelSpec("p3", 8, 2, serves=(8, 16))
    head = RPNHead([level], RPNConfig(per_level=4, proposals=10, ratios=(1.0,))).eval()
    boxes = torch.tensor([[0.0, 0, 32, 32]] * 3)
    logits, deltas = [torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[6.0, 5.0, 4.0]])], [torch.zeros(1, 3, 4)] * 2
    made = head.propose(logits, deltas, [boxes, boxes], torch.tensor([[64.0, 64.0]]))
    assert made.scores[made.valid].tolist() == [6, 3]


def test_an_unshared_head_with_the_shared_weights_is_the_shared_head():
    shared = RPNHead(PLAIN, CONFIG).eval()
    unshared, maps = unshared_copy(shared).eval(), features(*PLAIN)
    ours, theirs = unshared(maps), shared(maps)
    for mine, other in zip([*ours[0], *ours[1]], [*theirs[0], *theirs[1]], strict=True):
        torch.testing.assert_close(mine, other)
    anchors, sizes = shared.anchors(maps, (64, 96)), torch.tensor([[64.0, 96.0]] * 2)
    mine, other = (head.propose(*out, anchors, sizes) for head, out in ((unshared, ours), (shared, theirs)))
    assert torch.equal(mine.boxes_xyxy, other.boxes_xyxy)


def test_every_level_of_an_unshared_head_has_weights_of_its_own():
    unshared, maps = unshared_copy(RPNHead(PLAIN, CONFIG)), features(*PLAIN)
    before = unshared(maps)[0]
    nn.init.normal_(unshared.objectness["p3"].weight)
    after = unshared(maps)[0]
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


def test_an_unshared_head_takes_levels_of_any_width_and_number_of_sizes():
    mixed = (LevelSpec("p2", 4, 3), LevelSpec("p4", 16, 5, serves=(8, 16)))
    head = RPNHead(mixed, replace(CONFIG, shared=False))
    logits, deltas = head(features(*mixed))
    cells = [16 * 24 * 3, 4 * 6 * 3, 4 * 6 * 3]
    assert [each.shape[1] for each in logits] == [each.shape[1] for each in deltas] == cells
    assert [len(each) for each in head.anchors(features(*mixed), (64, 96))] == cells


def test_a_shared_head_refuses_unequal_numbers_of_sizes():
    mixed = (LevelSpec("p2", 4, 4), LevelSpec("p3", 8, 4, serves=(8, 16)))
    with pytest.raises(ConfigError) as error:
        RPNHead(mixed)
    assert str(error.value) == (
        "a shared RPN head expects as many anchor sizes on every level, got p2 serves (4,), p3 serves (8, 16): "
        "pass shared=False"
    )


@pytest.mark.parametrize("shared", [True, False])
def test_a_head_needs_a_level(shared):
    with pytest.raises(ConfigError, match=r"got no levels: pass pyramid.levels"):
        RPNHead([], RPNConfig(shared=shared))
