"""Heads in a row, each on the boxes of the one before it: Cascade R-CNN, arXiv:1712.00726."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..structures import Detections, Features, LevelSpec, Proposals, Targets
from .fast_rcnn import FastRCNNConfig, FastRCNNHead

POSITIVE_IOUS = (0.5, 0.6, 0.7)
DELTA_FACTORS = (1.0, 2.0, 3.0)
"""What a stage counts as an object, and its factor on deltas, which shrink from stage to stage; section 4.2 there."""


class CascadeHead(nn.Module):
    """Two or three RoI heads that refine one another's boxes; each is stricter in what it takes for an object.

    Args:
        levels, num_classes, roi_levels: see `FastRCNNHead`.
        stages: heads in a row, 2 or 3.
        config: of the first stage; the later ones differ in `positive_iou` and `delta_weights`.
    Raises:
        ConfigError: another number of stages, or what a `FastRCNNHead` refuses.
    """

    def __init__(
        self,
        levels: Sequence[LevelSpec],
        num_classes: int,
        *,
        stages: int = 3,
        roi_levels: int = 4,
        config: FastRCNNConfig | None = None,
    ) -> None:
        super().__init__()
        if not 2 <= stages <= len(POSITIVE_IOUS):
            raise ConfigError(f"a cascade expects 2 or {len(POSITIVE_IOUS)} stages, got {stages}")
        self.config = config or FastRCNNConfig()
        self.num_classes = num_classes
        configs = [_stage(self.config, index) for index in range(stages)]
        self.stages = nn.ModuleList(
            FastRCNNHead(levels, num_classes, roi_levels=roi_levels, config=each) for each in configs
        )
        self.levels = self._heads[0].levels

    @property
    def _heads(self) -> list[FastRCNNHead]:
        return list(self.stages)  # type: ignore[arg-type]

    def assign_levels(self, rois_xyxy: Tensor) -> Tensor:
        """As `FastRCNNHead.assign_levels`."""
        return self._heads[0].assign_levels(rois_xyxy)

    def detect(self, features: Features, proposals: Proposals, sizes: Tensor) -> Detections:
        """As `FastRCNNHead.detect`: boxes of the last stage, scores averaged over the stages."""
        rois_xyxy, scores = proposals.boxes_xyxy, []
        for stage in self._heads:
            found = stage.judge(features, rois_xyxy)
            scores.append(found.probabilities)
            likeliest = found.probabilities.argmax(dim=-1)[..., None, None].expand(-1, -1, 1, 4)
            rois_xyxy = found.boxes_xyxy.gather(2, likeliest).squeeze(2)
        return stage.select(found, torch.stack(scores).mean(dim=0), proposals.valid, sizes)

    def losses(self, features: Features, proposals: Proposals, targets: Targets) -> dict[str, Tensor]:
        """`roi_class` and `roi_box` of the first stage, `roi2_class`, `roi2_box` and so on of the later ones."""
        rois_xyxy, usable = self._heads[0].draw(proposals, targets)
        losses: dict[str, Tensor] = {}
        for number, stage in enumerate(self._heads, start=1):
            own, rois_xyxy = stage.learn(features, rois_xyxy, usable, targets)
            losses |= own if number == 1 else {name.replace("roi", f"roi{number}"): own[name] for name in own}
            usable = usable & (rois_xyxy[..., 2:] > rois_xyxy[..., :2]).all(dim=-1)
        return losses


def _stage(config: FastRCNNConfig, index: int) -> FastRCNNConfig:
    x, y, width, height = (DELTA_FACTORS[index] * weight for weight in config.delta_weights)
    iou = config.positive_iou + POSITIVE_IOUS[index] - POSITIVE_IOUS[0]
    return dataclasses.replace(config, positive_iou=min(iou, 1.0), delta_weights=(x, y, width, height))
