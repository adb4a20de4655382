"""One optimiser step, the same for every training here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, FpnkitError
from .device import PRECISIONS, keep_depthwise_in_float32, mixed_precision


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How weights move.

    Attributes:
        batch_size: images a step.
        lr: peak learning rate of AdamW.
        backbone_lr_factor: the backbone's share of it, which keeps what ImageNet taught.
        weight_decay: of weights; biases and norms have none.
        warmup_steps: linear rise to `lr`, before the cosine to zero.
        clip_norm: largest norm of the gradient.
        precision: `bf16` mixed precision or `float32`.
    """

    batch_size: int = 8
    lr: float = 4e-4
    backbone_lr_factor: float = 0.3
    weight_decay: float = 0.02
    warmup_steps: int = 200
    clip_norm: float = 5.0
    precision: str = "bf16"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, got {self.batch_size}")
        for name in ("lr", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("warmup_steps", "backbone_lr_factor", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")


class Optimizer:
    """AdamW with warm-up and cosine over the trainable parameters of a detector.

    Args:
        detector: moved to the device, in channels-last memory.
        config: see `OptimizerConfig`.
        steps: of the whole training.
        device: where it runs.
    """

    def __init__(self, detector: nn.Module, config: OptimizerConfig, *, steps: int, device: torch.device) -> None:
        detector.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if device.type == "cpu" and config.precision == "bf16":
            keep_depthwise_in_float32(detector)
        self.detector = detector
        self.config = config
        self.steps = steps
        self.device = device
        self.adam = torch.optim.AdamW(parameter_groups(detector, config), lr=config.lr)

    def learning_rate(self, step: int) -> float:
        """Of the step after so many."""
        warmup = min(1.0, (step + 1) / max(1, self.config.warmup_steps))
        return self.config.lr * warmup * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def step(self, done: int, losses: Callable[[], dict[str, Tensor]], *, what: str) -> dict[str, float]:
        """Compute losses and move the weights.

        Args:
            done: steps before this one.
            losses: computes them, by name; they are summed.
            what: the images, for the error.
        Returns:
            `total` and each loss.
        Raises:
            FpnkitError: the loss is not finite.
        """
        for group in self.adam.param_groups:
            group["lr"] = self.learning_rate(done) * group["factor"]
        with mixed_precision(self.device, self.config.precision):
            made = losses()
        total = torch.stack(list(made.values())).sum()
        if not torch.isfinite(total):
            terms = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in made.items())
            raise FpnkitError(f"step {done + 1}: the loss is not finite ({terms}) on {what}: lower --lr")
        self.adam.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.detector.parameters(), self.config.clip_norm)
        self.adam.step()
        return {"total": float(total.detach()), **{name: float(value.detach()) for name, value in made.items()}}


def parameter_groups(detector: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Trainable parameters by learning rate and decay: backbone or not, weight or bias."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith("backbone."), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "factor": config.backbone_lr_factor if in_backbone else 1.0,
            "weight_decay": config.weight_decay if is_weight else 0.0,
        }
        for (in_backbone, is_weight), parameters in groups.items()
    ]
