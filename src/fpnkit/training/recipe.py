"""What a training is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..data.augment import AugmentConfig
from ..errors import ConfigError
from ..zoo import default_preprocess
from .optimize import OptimizerConfig

FREEZE = ("model", "none", "backbone")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The recipe.

    Attributes:
        model: name in the zoo.
        epochs: passes over the data.
        optim: see `OptimizerConfig`.
        augment: see `AugmentConfig`.
        freeze: what keeps still: what the `model` says (first stages and all batch norms), `none`, the `backbone`.
        sync_norms: batch norms that learn take their statistics from all processes (GPUs only), not each from its own.
        ema: decay of the average of weights that is evaluated and kept, 0 for none.
        evaluate_every: epochs between evaluations; the last epoch is always evaluated.
        patience: evaluations without a better AP after which training ends, 0 for never.
        val_losses: validation images whose losses are logged at each evaluation.
        checkpoint_seconds: most time between two training states.
        keep: training states that are kept, the newest ones.
        seed: of weights, order, augmentation and sampling.
        workers: loading processes.
        device: `auto`, `cpu`, `cuda`.
    """

    model: str = "faster_rcnn_r50_fpn"
    epochs: int = 12
    optim: OptimizerConfig = field(default_factory=OptimizerConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    freeze: str = "model"
    sync_norms: bool = False
    ema: float = 0.0
    evaluate_every: int = 1
    patience: int = 0
    val_losses: int = 64
    checkpoint_seconds: float = 300.0
    keep: int = 1
    seed: int = 0
    workers: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "evaluate_every", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("workers", "patience", "val_losses", "checkpoint_seconds"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema must be 0 or more and below 1, got {self.ema}")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must lie in 0..2**32 - 1, got {self.seed}")
        if self.freeze not in FREEZE:
            raise ConfigError(f"freeze must be one of {', '.join(FREEZE)}, got {self.freeze!r}")
        if self.sync_norms and self.freeze != "none":
            raise ConfigError(f"sync_norms is for norms that learn: it needs freeze=none, got freeze={self.freeze}")
        default_preprocess(self.model)
