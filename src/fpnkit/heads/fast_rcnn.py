"""Fast R-CNN head on a pyramid, arXiv:1612.03144, section 4.2.

Shapes: N images, K proposals an image, C classes; label C is the background inside this file only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..ops import boxes, codec, losses, matching
from ..ops.nms import nms_keep, top_k
from ..ops.roi import CANONICAL_SIZE, multi_level_roi_align, roi_levels
from ..outputs import Postprocess
from ..structures import Detections, Features, LevelSpec, Proposals, Targets
from .rpn import shared_channels, wanted_deltas


@dataclass(frozen=True, kw_only=True)
class FastRCNNConfig:
    """Numbers of the RoI head; the defaults are the paper's.

    Attributes:
        hidden: width of the two fully connected layers.
        pooled: cells of the pooled map, 7 x 7.
        canonical_size: side in input pixels of the RoI that eq. 1 gives to P4; 224 goes with images of 800.
        sampling_ratio: RoIAlign samples a cell side.
        aligned: RoIAlign with the half-pixel shift; torchvision's detectors go without.
        positive_iou: proposals at or above are objects, below are background.
        samples: RoIs an image in the loss.
        positive_fraction: largest share of positives among them.
        smooth_l1_beta: where the box loss turns linear.
        delta_weights: factors on what is learned of a box, centre x, y and log width, height; torchvision's
            bbox_reg_weights.
        min_side: smaller detections, in pixels, are dropped.
    """

    hidden: int = 1024
    pooled: int = 7
    canonical_size: float = CANONICAL_SIZE
    sampling_ratio: int = 2
    aligned: bool = True
    positive_iou: float = 0.5
    samples: int = 512
    positive_fraction: float = 0.25
    smooth_l1_beta: float = 1 / 9
    delta_weights: codec.Weights = (10.0, 10.0, 5.0, 5.0)
    min_side: float = 1e-2

    def __post_init__(self) -> None:
        if min(self.hidden, self.pooled, self.samples) < 1:
            raise ConfigError("Fast R-CNN head expects hidden, pooled and samples of 1 or more")
        if not self.canonical_size > 0:
            raise ConfigError(f"Fast R-CNN head expects a canonical_size above 0, got {self.canonical_size}")
        for name in ("positive_iou", "positive_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"Fast R-CNN head expects {name} in 0..1, got {getattr(self, name)}")


@dataclass(frozen=True)
class RoIPredictions:
    """What a head predicts for K RoIs, before anything is dropped.

    Attributes:
        probabilities: (N, K, C), without the background's.
        boxes_xyxy: (N, K, C, 4) refined for each class, not clipped.
        levels: (N, K) int64, the k of each RoI's level.
    """

    probabilities: Tensor
    boxes_xyxy: Tensor
    levels: Tensor


class FastRCNNHead(nn.Module):
    """Classes and refined boxes of RoIs, each pooled from the level of eq. 1.

    Args:
        levels: the pyramid's specs; P6 is for the RPN alone.
        num_classes: C, without background.
        roi_levels: how many of `levels`, from the finest, RoIs are pooled from; the four of P2..P5, without P6.
        config: numbers; see `FastRCNNConfig`.
    Raises:
        ConfigError: no class, no levels, or levels of different widths.
    """

    _places: Tensor
    _numbers: Tensor

    def __init__(
        self,
        levels: Sequence[LevelSpec],
        num_classes: int,
        *,
        roi_levels: int = 4,
        config: FastRCNNConfig | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigError(f"Fast R-CNN head expects at least 1 class, got {num_classes}")
        self.levels = tuple(levels)[:roi_levels]
        self.num_classes = num_classes
        self.config = config or FastRCNNConfig()
        hidden = self.config.hidden
        channels = shared_channels(self.levels, "Fast R-CNN head")
        self._served = sorted((stride, place) for place, level in enumerate(self.levels) for stride in level.serves)
        self.register_buffer("_places", torch.tensor([place for _, place in self._served]), persistent=False)
        self.register_buffer("_numbers", torch.tensor([level.number for level in self.levels]), persistent=False)
        self.fc1 = nn.Linear(channels * self.config.pooled**2, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.scores = nn.Linear(hidden, num_classes + 1)
        self.deltas = nn.Linear(hidden, 4 * num_classes)
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for layer in (self.fc1, self.fc2, self.scores, self.deltas):
            nn.init.zeros_(layer.bias)

    def forward(self, features: Features, rois_xyxy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict for RoIs.

        Args:
            features: the pyramid.
            rois_xyxy: (N, K, 4) input pixels.
        Returns:
            class logits (N, K, C + 1), deltas (N, K, C, 4), the k of each RoI's level (N, K) int64.
        """
        logits, deltas, levels, _ = self._predict(features, rois_xyxy)
        return logits, deltas, levels

    def _predict(self, features: Features, rois_xyxy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `forward` returns, and the RoIs (N, K, 4) once more: the copy that boxes are decoded from."""
        images, count = rois_xyxy.shape[:2]
        level_index = self.assign_levels(rois_xyxy)
        image_index = torch.arange(images, device=rois_xyxy.device, dtype=rois_xyxy.dtype)
        rois = torch.cat([image_index[:, None, None].expand(images, count, 1), rois_xyxy], dim=2).flatten(0, 1)
        by_level = level_index.flatten().argsort(stable=True)
        pooled, boxes_xyxy = multi_level_roi_align(
            [features[level.name].float() for level in self.levels],
            [level.stride for level in self.levels],
            rois[by_level],
            level_index.flatten()[by_level],
            self.config.pooled,
            self.config.sampling_ratio,
            self.config.aligned,
        )
        hidden = torch.relu(self.fc2(torch.relu(self.fc1(pooled.flatten(1)))))
        in_order = by_level.argsort()
        logits = self.scores(hidden).float()[in_order].reshape(images, count, self.num_classes + 1)
        deltas = self.deltas(hidden).float()[in_order].reshape(images, count, self.num_classes, 4)
        return logits, deltas, self._numbers[level_index], boxes_xyxy[in_order].reshape(images, count, 4)

    def assign_levels(self, rois_xyxy: Tensor) -> Tensor:
        """Index into `levels` of the one that eq. 1 gives each RoI: (..., 4) -> (...) int64."""
        served = [stride for stride, _ in self._served]
        return self._places[roi_levels(rois_xyxy, served, canonical_size=self.config.canonical_size)]

    def detect(
        self, features: Features, proposals: Proposals, sizes_hw: Tensor, postprocess: Postprocess
    ) -> Detections:
        """Score proposals, refine them, suppress class by class.

        Args:
            features: the pyramid.
            proposals: of the RPN.
            sizes_hw: (N, 2) height and width of the images inside their padding.
            postprocess: least score, NMS threshold, number of detections.
        Returns:
            `Detections` (N, postprocess.detections, ...), padded, best first, with `levels`.
        """
        found = self.predict(features, proposals.boxes_xyxy)
        return self.postprocess(found, found.probabilities, proposals.valid, sizes_hw, postprocess)

    def predict(self, features: Features, rois_xyxy: Tensor) -> RoIPredictions:
        """Class probabilities and refined boxes of RoIs, (N, K, 4) input pixels."""
        logits, deltas, levels, rois_xyxy = self._predict(features, rois_xyxy)
        probabilities = logits.softmax(dim=-1)[..., : self.num_classes]
        decoded = codec.decode_deltas(
            deltas.transpose(1, 2), rois_xyxy[:, None], weights=self.config.delta_weights
        ).transpose(1, 2)
        return RoIPredictions(probabilities, decoded, levels)

    def postprocess(
        self, found: RoIPredictions, probabilities: Tensor, usable: Tensor, sizes_hw: Tensor, numbers: Postprocess
    ) -> Detections:
        """Drop, suppress and sort what was predicted.

        Args:
            found: boxes and levels.
            probabilities: (N, K, C), which may be means over several heads.
            usable: (N, K) bool, RoIs that are not padding.
            sizes_hw: (N, 2) height and width of the images inside their padding.
            numbers: least score, NMS threshold, number of detections.
        Returns:
            `Detections` (N, numbers.detections, ...), padded, best first, with `levels`.
        """
        images, rois, classes = probabilities.shape
        scores = probabilities.transpose(1, 2)
        decoded = boxes.clip(found.boxes_xyxy.transpose(1, 2).flatten(1, 2), sizes_hw)
        decoded = decoded.reshape(images * classes, rois, 4)
        shown = (usable[:, None] & (scores > numbers.min_score)).flatten(0, 1)
        shown &= boxes.min_side(decoded) >= self.config.min_side
        scores = scores.flatten(0, 1).masked_fill(~shown, float("-inf"))
        keep = nms_keep(decoded, scores, numbers.nms_iou)
        survivors = scores.masked_fill(~keep, float("-inf")).reshape(images, classes * rois)
        best, index, valid = top_k(survivors, numbers.detections)
        labels = torch.div(index, rois, rounding_mode="trunc")
        return Detections(
            boxes_xyxy=decoded.reshape(images, classes * rois, 4).gather(1, index[..., None].expand(-1, -1, 4)),
            scores=best.masked_fill(~valid, 0.0),
            labels=labels,
            valid=valid,
            more={"levels": found.levels.gather(1, index - labels * rois)},
        )

    def losses(self, features: Features, proposals: Proposals, targets: Targets) -> dict[str, Tensor]:
        """`roi_class` and `roi_box` over sampled proposals; the objects themselves are proposals too.

        Source: arXiv:1504.08083, section 2.3; both terms are divided by the number of sampled RoIs.
        """
        rois_xyxy, sampled = self.sample_rois(proposals, targets)
        losses, _ = self.losses_of_rois(features, rois_xyxy, sampled, targets)
        return losses

    def sample_rois(self, proposals: Proposals, targets: Targets) -> tuple[Tensor, Tensor]:
        """Sample RoIs (N, S, 4) among proposals and objects; which of them (N, S) are no padding."""
        config = self.config
        objects_xyxy = targets.boxes_xyxy.masked_fill(~targets.valid[..., None], 0.0)
        candidates = torch.cat([proposals.boxes_xyxy, objects_xyxy], dim=1)
        usable = torch.cat([proposals.valid, targets.valid & ~targets.crowd], dim=1)
        matches = self._matched(candidates, usable, targets)
        seeds = None if targets.seeds is None else targets.seeds + 1  # other samples than the RPN's
        samples = matching.sample(
            matches, count=config.samples, positive_fraction=config.positive_fraction, seeds=seeds
        )
        return candidates.gather(1, samples.index[..., None].expand(-1, -1, 4)), samples.valid

    def losses_of_rois(
        self, features: Features, rois_xyxy: Tensor, usable: Tensor, targets: Targets
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The losses over given RoIs, and the boxes that they become.

        Args:
            features: the pyramid.
            rois_xyxy: (N, S, 4) input pixels.
            usable: (N, S) bool, RoIs that are not padding.
            targets: objects.
        Returns:
            `roi_class` and `roi_box`; (N, S, 4) the RoIs as refined for their own class, objects' or likeliest.
        """
        matches = self._matched(rois_xyxy, usable, targets)
        counted = matches.positive | matches.negative
        logits, deltas, _ = self.forward(features, rois_xyxy)

        labels = self._wanted_labels(targets, matches)
        likeliest = logits[..., : self.num_classes].argmax(dim=-1)
        own_class = torch.where(matches.positive, labels, likeliest)[..., None, None].expand(-1, -1, 1, 4)
        own_deltas = deltas.gather(2, own_class).squeeze(2)
        weights = self.config.delta_weights
        wanted = wanted_deltas(rois_xyxy, targets, matches.target, weights)
        box = self.box_loss(own_deltas, wanted)
        count = counted.sum(dim=1)
        return {
            "roi_class": losses.masked_mean(losses.class_loss(logits, labels), counted, count),
            "roi_box": losses.masked_mean(box, matches.positive, count),
        }, codec.decode_deltas(own_deltas.detach(), rois_xyxy, weights=weights)

    def box_loss(self, predicted: Tensor, wanted: Tensor) -> Tensor:
        """Of deltas: (N, S, 4), (N, S, 4) -> (N, S)."""
        return losses.smooth_l1(predicted, wanted, beta=self.config.smooth_l1_beta)

    def _matched(self, rois_xyxy: Tensor, usable: Tensor, targets: Targets) -> matching.Matches:
        matches = matching.match(
            rois_xyxy,
            targets.boxes_xyxy,
            targets.valid,
            targets.crowd,
            positive_iou=self.config.positive_iou,
            negative_iou=self.config.positive_iou,
            allow_low_quality_matches=False,
        )
        return matching.Matches(matches.target, matches.positive & usable, matches.negative & usable)

    def _wanted_labels(self, targets: Targets, matches: matching.Matches) -> Tensor:
        background = torch.full_like(matches.target, self.num_classes)
        if targets.labels.shape[1] == 0:
            return background
        return torch.where(matches.positive, targets.labels.gather(1, matches.target), background)
