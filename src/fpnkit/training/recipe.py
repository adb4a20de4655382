"""What a training is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..data.augment import AugmentConfig
from ..data.paths import MAX_PIXELS
from ..errors import ConfigError
from .optimize import OptimizerConfig

FREEZE = ("model", "none", "backbone")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The recipe. Lengths that are None are chosen from the size of the data, see `plan_length`.

    Attributes:
        epochs: passes over the data.
        steps: steps of the optimiser, instead of epochs; the last epoch may be cut short.
        optim: see `OptimizerConfig`.
        augment: see `AugmentConfig`.
        freeze: what is not trained: what the `model` says (first stages and all batch norms), `none`, the `backbone`.
        sync_norms: batch norms that learn take their statistics from all processes (GPUs only), not each from its own.
        ema: decay of the exponential moving average of the weights, which is evaluated and kept; 0 for none,
            None for what fits the length.
        evaluate_every: epochs between evaluations; the end is always evaluated.
        patience: evaluations without a better AP after which training ends, 0 for never.
        val_losses: validation images whose losses are logged at each evaluation.
        checkpoint_seconds: most time between two training states.
        keep: training states that are kept, the newest ones.
            max_pixels: width times height of the largest image that is read.
        seed: of weights, order, augmentation and sampling.
        workers: loading processes.
        device: `auto`, `cpu`, `cuda`.
    """

    epochs: int | None = None
    steps: int | None = None
    optim: OptimizerConfig = field(default_factory=OptimizerConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    freeze: str = "model"
    sync_norms: bool = False
    ema: float | None = None
    evaluate_every: int | None = None
    patience: int = 0
    val_losses: int = 64
    checkpoint_seconds: float = 300.0
    keep: int = 1
    max_pixels: int = MAX_PIXELS
    seed: int = 0
    workers: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "steps", "evaluate_every", "keep", "max_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be 1 or more, got {value}")
        for name in ("workers", "patience", "val_losses", "checkpoint_seconds"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ConfigError(f"ema must be 0 or more and below 1, got {self.ema}")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must lie in 0..2**32 - 1, got {self.seed}")
        if self.freeze not in FREEZE:
            raise ConfigError(f"freeze must be one of {', '.join(FREEZE)}, got {self.freeze!r}")
        if self.sync_norms and self.freeze != "none":
            raise ConfigError(f"sync_norms is for norms that learn: it needs freeze=none, got freeze={self.freeze}")
