"""Which anchor or proposal learns which object, and which of them a step looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .boxes import coverage, iou

_WORD = 0xFFFFFFFF

CROWD_COVERAGE = 0.5
"""A candidate with this share of its area in a crowd region is no background example."""


@dataclass(frozen=True)
class Matches:
    """What each candidate box is to learn.

    Attributes:
        target: (N, A) int64, index of the best object; meaningful where `positive`.
        positive: (N, A) bool.
        negative: (N, A) bool. Candidates that are neither are ignored.
    """

    target: Tensor
    positive: Tensor
    negative: Tensor


@dataclass(frozen=True)
class Samples:
    """A fixed number of candidates sampled from `Matches`.

    Attributes:
        index: (N, S) int64 into the candidates; positives fill the front.
        valid: (N, S) bool: a real sample.
        positive: (N, S) bool, implies `valid`.
    """

    index: Tensor
    valid: Tensor
    positive: Tensor


def match(
    candidates_xyxy: Tensor,
    boxes_xyxy: Tensor,
    valid: Tensor,
    crowd: Tensor,
    *,
    positive_iou: float,
    negative_iou: float,
    allow_low_quality_matches: bool,
) -> Matches:
    """Match candidate boxes to objects by IoU.

    Args:
        candidates_xyxy: (A, 4) shared by all images, or (N, A, 4).
        boxes_xyxy: (N, M, 4) objects; M may be 0.
        valid: (N, M) bool, real objects.
        crowd: (N, M) bool, regions to leave out; a crowd is never a positive match.
        positive_iou: positive from here on.
        negative_iou: negative below; between the two a candidate is ignored.
        allow_low_quality_matches: also make positive the best candidates of each object (anchors of the RPN).
    Returns:
        `Matches` with A candidates an image.
    Source: arXiv:1612.03144, section 4.1; arXiv:1506.01497, section 3.1.2.
    """
    images, count = boxes_xyxy.shape[0], candidates_xyxy.shape[-2]
    candidates = candidates_xyxy.expand(images, count, 4)
    if count == 0 or boxes_xyxy.shape[1] == 0:
        target = torch.zeros(images, count, dtype=torch.int64, device=candidates.device)
        return Matches(target, torch.zeros_like(target, dtype=torch.bool), torch.ones_like(target, dtype=torch.bool))
    is_object = (valid & ~crowd)[:, None, :]
    overlaps = iou(candidates, boxes_xyxy).masked_fill(~is_object, -1.0)
    best, target = overlaps.max(dim=2)
    positive = best >= positive_iou
    if allow_low_quality_matches:
        best_of_object = overlaps.amax(dim=1, keepdim=True)
        positive |= ((overlaps == best_of_object) & (overlaps > 0)).any(dim=2)
    in_crowd = coverage(candidates, boxes_xyxy) * (valid & crowd)[:, None, :] >= CROWD_COVERAGE
    negative = (best < negative_iou) & ~positive & ~in_crowd.any(dim=2)
    return Matches(target, positive, negative)


def sample(matches: Matches, *, count: int, positive_fraction: float, seeds: Tensor | None = None) -> Samples:
    """Draw candidates at random: at most `positive_fraction` positives, the rest negatives.

    Args:
        matches: of N images with A candidates each.
        count: candidates an image; fewer are valid where fewer exist.
        positive_fraction: largest share of positives.
        seeds: (N,) int64, one an image: its samples depend on it and the candidates of that image alone; by default
            they come from the global torch random state.
    Returns:
        `Samples` of fixed width.
    """
    most_positives = int(count * positive_fraction)
    if seeds is None:
        seeds = torch.randint(2**32, (len(matches.target),)).to(matches.target.device)
    dice = chance(seeds, matches.target.shape[1])
    positive_index, is_positive = _sample(dice, matches.positive, most_positives)
    negative_index, is_negative = _sample(dice, matches.negative, count)
    wanted = count - is_positive.sum(dim=1, keepdim=True)
    is_negative &= torch.arange(is_negative.shape[1], device=dice.device) < wanted
    return Samples(
        index=torch.cat([positive_index, negative_index], dim=1),
        valid=torch.cat([is_positive, is_negative], dim=1),
        positive=torch.cat([is_positive, torch.zeros_like(is_negative)], dim=1),
    )


def chance(seeds: Tensor, count: int) -> Tensor:
    """Numbers in 0..1 that depend on a seed and a place alone: (N,) int64 -> (N, count) float32, on any device.

    Source: the 32-bit finaliser of MurmurHash3, applied to seed and place in turn.
    """
    places = torch.arange(count, device=seeds.device) & _WORD  # else GPUs' compiled code counts in 32 bits
    mixed = _mix(_mix(seeds[:, None] & _WORD) + places * 0x9E3779B1)
    return (mixed >> 8).to(torch.float32) / 2**24


def _mix(value: Tensor) -> Tensor:
    value = value & _WORD
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        value = ((value ^ (value >> shift)) * factor) & _WORD
    return value ^ (value >> 16)


def _sample(dice: Tensor, eligible: Tensor, count: int) -> tuple[Tensor, Tensor]:
    top = dice.masked_fill(~eligible, -1.0).topk(min(count, dice.shape[1]), dim=1)
    return top.indices, top.values >= 0
