"""What all rows of a study have in common."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..backbones import BackboneConfig
from ..data.pixels import PreprocessConfig
from ..errors import ConfigError
from ..heads import FastRCNNConfig, RPNConfig
from ..ops.roi import CANONICAL_SIZE
from ..pyramids import PyramidConfig
from ..training.optimize import OptimizerConfig
from ..zoo.shorthands import normalisation
from ..zoo.spec import ModelSpec

PAPER_SIDE = 800
"""Pixels of the images that the paper's 32..512 anchors and the 224 of eq. 1 are meant for."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """One backbone, one budget, one data order for every row.

    Attributes:
        steps: the budget of each row, in optimiser steps.
        seeds: every row is trained with the seeds 0, 1, ...
        side: longer side of the images in pixels; anchors and eq. 1 shrink with it, from 800.
        scale: scale jitter of training, relative to `side`.
        backbone: of timm.
        frozen_stages: of it.
        channels: d; the paper has 256.
        hidden: width of the RoI head's layers; the paper has 1024.
        proposals: that the RoI head reads; the paper has 1000.
        roi_samples: RoIs an image in the loss; the paper has 512.
        optim: see `OptimizerConfig`.
        workers: loading processes.
        device: `auto`, `cpu`, `cuda`.
    """

    steps: int = 500
    seeds: int = 2
    side: int = 320
    scale: tuple[float, float] = (0.8, 1.4)
    backbone: str = "tf_efficientnet_lite0"
    frozen_stages: int = 2
    channels: int = 64
    hidden: int = 512
    proposals: int = 300
    roi_samples: int = 64
    optim: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(batch_size=4, warmup_steps=50))
    workers: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "seeds", "side", "channels", "hidden", "proposals", "roi_samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.workers < 0:
            raise ConfigError(f"workers must be 0 or more, got {self.workers}")

    def spec(self, task: str, pyramid: PyramidConfig) -> ModelSpec:
        """The model of a row.

        Args:
            task: `rpn`, `fast_rcnn` or `faster_rcnn`.
            pyramid: of the row; its channels are the study's.
        """
        return ModelSpec(
            backbone=self.backbone_config(),
            pyramid=replace(pyramid, channels=self.channels),
            rpn=None if task == "fast_rcnn" else self.rpn(),
            roi=None if task == "rpn" else self.roi(),
            preprocess=self.preprocess(),
        )

    def backbone_config(self) -> BackboneConfig:
        """The backbone of every row."""
        return BackboneConfig(name=self.backbone, frozen_stages=self.frozen_stages)

    def preprocess(self) -> PreprocessConfig:
        """The longer side resized to `side`, normalised as the backbone was trained."""
        mean, std = normalisation(self.backbone)
        return PreprocessConfig(short_side=self.side, long_side=self.side, mean=mean, std=std)

    def rpn(self) -> RPNConfig:
        """The paper's numbers, at this image size."""
        return RPNConfig(
            anchor_scale=RPNConfig().anchor_scale * self.side / PAPER_SIDE,
            per_level=500,
            proposals=self.proposals,
            train_per_level=self.proposals,
            train_proposals=self.proposals,
        )

    def roi(self) -> FastRCNNConfig:
        """The paper's numbers, at this image size."""
        return FastRCNNConfig(
            hidden=self.hidden, samples=self.roi_samples, canonical_size=CANONICAL_SIZE * self.side / PAPER_SIDE
        )
