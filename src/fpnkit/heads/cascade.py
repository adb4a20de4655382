"""Heads in a row, each on the boxes of the one before it: Cascade R-CNN, arXiv:1712.00726."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..outputs import Postprocess
from ..structures import Detections, Features, LevelSpec, Proposals, Targets
from .fast_rcnn import FastRCNNConfig, FastRCNNHead


@dataclass(frozen=True, kw_only=True)
class CascadeConfig:
    """How the heads of a cascade differ; the defaults are those of the source, section 4.2.

    Attributes:
        stages: heads in a row.
        positive_ious: of each stage: RoIs at or above are objects.
        delta_factors: of each stage: factor on `FastRCNNConfig.delta_weights`; what is left to refine shrinks.
    Raises:
        ConfigError: fewer than 2 stages, or fewer numbers than stages.
    """

    stages: int = 3
    positive_ious: tuple[float, ...] = (0.5, 0.6, 0.7)
    delta_factors: tuple[float, ...] = (1.0, 2.0, 3.0)

    def __post_init__(self) -> None:
        if self.stages < 2:
            raise ConfigError(f"a cascade expects 2 stages or more, got {self.stages}: one head alone is no cascade")
        for name in ("positive_ious", "delta_factors"):
            if len(getattr(self, name)) < self.stages:
                raise ConfigError(
                    f"a cascade of {self.stages} stages expects as many {name}, got {getattr(self, name)}"
                )
        if not all(0 < each <= 1 for each in self.positive_ious) or min(self.delta_factors) <= 0:
            raise ConfigError(
                "a cascade expects positive_ious above 0 and at most 1, and delta_factors above 0, "
                f"got {self.positive_ious} and {self.delta_factors}"
            )

    def stage(self, config: FastRCNNConfig, index: int) -> FastRCNNConfig:
        """The numbers of one stage."""
        x, y, width, height = (self.delta_factors[index] * weight for weight in config.delta_weights)
        return replace(config, positive_iou=self.positive_ious[index], delta_weights=(x, y, width, height))


class CascadeHead(nn.Module):
    """RoI heads that refine one another's boxes; each is stricter in what it takes for an object.

    Args:
        levels, num_classes, roi_levels: see `FastRCNNHead`.
        config: of all stages, but for what `cascade` says.
        cascade: how many stages, and how they differ.
    Raises:
        ConfigError: what a `FastRCNNHead` refuses.
    """

    def __init__(
        self,
        levels: Sequence[LevelSpec],
        num_classes: int,
        *,
        roi_levels: int = 4,
        config: FastRCNNConfig | None = None,
        cascade: CascadeConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config or FastRCNNConfig()
        self.cascade = cascade or CascadeConfig()
        self.num_classes = num_classes
        configs = [self.cascade.stage(self.config, index) for index in range(self.cascade.stages)]
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

    def detect(
        self, features: Features, proposals: Proposals, sizes_hw: Tensor, postprocess: Postprocess
    ) -> Detections:
        """As `FastRCNNHead.detect`: boxes of the last stage, scores averaged over the stages."""
        rois_xyxy, scores = proposals.boxes_xyxy, []
        for stage in self._heads:
            found = stage.predict(features, rois_xyxy)
            scores.append(found.probabilities)
            likeliest = found.probabilities.argmax(dim=-1)[..., None, None].expand(-1, -1, 1, 4)
            rois_xyxy = found.boxes_xyxy.gather(2, likeliest).squeeze(2)
        return stage.postprocess(found, torch.stack(scores).mean(dim=0), proposals.valid, sizes_hw, postprocess)

    def losses(self, features: Features, proposals: Proposals, targets: Targets) -> dict[str, Tensor]:
        """`roi_class` and `roi_box` of the first stage, `roi2_class`, `roi2_box` and so on of the later ones."""
        rois_xyxy, usable = self._heads[0].sample_rois(proposals, targets)
        losses: dict[str, Tensor] = {}
        for number, stage in enumerate(self._heads, start=1):
            own, rois_xyxy = stage.losses_of_rois(features, rois_xyxy, usable, targets)
            losses |= own if number == 1 else {name.replace("roi", f"roi{number}"): own[name] for name in own}
            usable = usable & (rois_xyxy[..., 2:] > rois_xyxy[..., :2]).all(dim=-1)
        return losses
