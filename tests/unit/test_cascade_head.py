"""Heads in a row: each refines the boxes of the one before, and is stricter."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import Tensor

from fpnkit.errors import ConfigError
from fpnkit.heads import CascadeConfig, CascadeHead, FastRCNNConfig, Postprocess
from fpnkit.structures import LevelSpec, Proposals, Targets

LEVELS = [LevelSpec(f"p{number}", 2**number, 4) for number in (2, 3, 4, 5)]
SIZES = torch.tensor([[128.0, 128.0]])
EVERYTHING = Postprocess(min_score=0.0)
OBJECT = [20.0, 20.0, 60.0, 60.0]


def head(stages: int = 3, **numbers) -> CascadeHead:
    torch.manual_seed(1)
    config, cascade = FastRCNNConfig(hidden=8, **numbers), CascadeConfig(stages=stages)
    made = CascadeHead(LEVELS, 3, config=config, cascade=cascade)
    for stage in made.stages:
        torch.nn.init.normal_(stage.scores.weight, std=1.0)
        torch.nn.init.normal_(stage.deltas.weight, std=1.0)
    return made.eval()


def features() -> dict[str, Tensor]:
    torch.manual_seed(2)
    return {level.name: torch.randn(1, 4, 128 // level.stride, 128 // level.stride) for level in LEVELS}


def proposals(*boxes: list[float]) -> Proposals:
    found = torch.tensor([boxes])
    return Proposals(found, torch.ones(found.shape[:2]), torch.ones(found.shape[:2], dtype=torch.bool))


def objects(*boxes: list[float]) -> Targets:
    found = torch.tensor([boxes]).reshape(1, -1, 4)
    yes = torch.ones(found.shape[:2], dtype=torch.bool)
    return Targets(found, torch.ones(found.shape[:2], dtype=torch.int64), yes, ~yes)


@torch.no_grad()
def test_each_stage_reads_the_boxes_of_the_one_before_and_scores_are_means():
    one, maps, given = head(), features(), proposals([10.0, 10.0, 50.0, 70.0])
    rois, scores = given.boxes_xyxy, []
    for stage in one.stages:
        logits, deltas, _ = stage(maps, rois)
        scores.append(logits.softmax(-1)[0, 0, :3])
        dx, dy, dw, dh = (deltas[0, 0, scores[-1].argmax()] / torch.tensor(stage.config.delta_weights)).tolist()
        left, top, right, bottom = rois[0, 0].tolist()
        width, height = right - left, bottom - top
        centre = (left + width / 2 + dx * width, top + height / 2 + dy * height)
        half = (width * torch.tensor(dw).exp() / 2, height * torch.tensor(dh).exp() / 2)
        rois = torch.tensor([[[centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1]]]])
    mean = torch.stack(scores).mean(0)
    found = one.detect(maps, given, SIZES, EVERYTHING)[0].unpadded()
    torch.testing.assert_close(found.scores, mean.sort(descending=True).values)
    likeliest = scores[-1].argmax()
    last = found.boxes_xyxy[found.labels == likeliest]
    torch.testing.assert_close(last, rois[0].clamp(0, 128), atol=1e-3, rtol=1e-4)


def test_later_stages_are_stricter_and_learn_smaller_steps():
    first, second, third = (stage.config for stage in head().stages)
    assert [first.positive_iou, second.positive_iou, third.positive_iou] == pytest.approx([0.5, 0.6, 0.7])
    assert (second.delta_weights, third.delta_weights) == ((20, 20, 10, 10), (30, 30, 15, 15))


def test_a_box_between_the_thresholds_is_an_object_to_the_first_stage_alone():
    one = head(stages=2, samples=4, positive_fraction=1.0)
    for stage in one.stages:
        torch.nn.init.zeros_(stage.deltas.weight)  # boxes stay where they are: IoU 0.55
    between = proposals([20.0, 20.0, 60.0, 42.0])
    losses, boxes = {}, between.boxes_xyxy
    for number, stage in enumerate(one.stages):
        losses[number], boxes = stage.losses_of_rois(features(), boxes, between.valid, objects(OBJECT))
    assert losses[0]["roi_box"] > 0
    assert losses[1]["roi_box"] == 0


def test_every_stage_has_losses_that_reach_its_weights():
    one = head().train()
    losses = one.losses(features(), proposals([18.0, 22.0, 61.0, 58.0], [70.0, 70.0, 100.0, 110.0]), objects(OBJECT))
    assert list(losses) == ["roi_class", "roi_box", "roi2_class", "roi2_box", "roi3_class", "roi3_box"]
    sum(losses.values()).backward()
    for stage in one.stages:
        for name, weight in stage.named_parameters():
            assert weight.grad is not None, name
            assert weight.grad.isfinite().all(), name


def test_images_without_objects_have_finite_losses():
    losses = head().train().losses(features(), proposals([18.0, 22.0, 61.0, 58.0]), objects())
    assert all(each.isfinite() for each in losses.values())
    assert losses["roi3_box"] == 0


@pytest.mark.parametrize("stages", [0, 1])
def test_fewer_than_two_stages_are_refused(stages):
    with pytest.raises(ConfigError, match=f"a cascade expects 2 stages or more, got {stages}"):
        CascadeConfig(stages=stages)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"stages": 4}, r"a cascade of 4 stages expects as many positive_ious, got \(0.5, 0.6, 0.7\)"),
        ({"delta_factors": (1.0, 2.0)}, r"a cascade of 3 stages expects as many delta_factors, got \(1.0, 2.0\)"),
        ({"positive_ious": (0.5, 0.6, 1.1)}, "positive_ious above 0 and at most 1"),
        ({"delta_factors": (1.0, 2.0, 0.0)}, "delta_factors above 0"),
    ],
)
def test_every_stage_needs_numbers_in_range(numbers, message):
    with pytest.raises(ConfigError, match=message):
        CascadeConfig(**numbers)


def test_numbers_of_stages_are_those_that_are_given():
    cascade = CascadeConfig(stages=4, positive_ious=(0.3, 0.4, 0.5, 0.6), delta_factors=(1.0, 1.5, 2.0, 4.0))
    made = CascadeHead(LEVELS, 3, config=FastRCNNConfig(hidden=8), cascade=cascade)
    assert [stage.config.positive_iou for stage in made.stages] == [0.3, 0.4, 0.5, 0.6]
    assert [stage.config.delta_weights[0] for stage in made.stages] == [10, 15, 20, 40]


def test_a_detector_with_a_cascade_detects():
    detector = tiny.detector(stages=3)
    found = detector(torch.randn(2, 3, 128, 160), torch.tensor([[128.0, 160.0], [100.0, 90.0]]))
    boxes, scores, valid = found["boxes_xyxy"], found["scores"], found["valid"]
    assert valid.sum() > 10
    assert boxes[valid].isfinite().all()
    assert ((scores[valid] > 0.05) & (scores[valid] <= 1)).all()
