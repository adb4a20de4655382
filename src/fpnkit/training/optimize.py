"""One optimiser step, the same for every training here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..device import PRECISIONS, mixed_precision
from ..errors import ConfigError, FpnkitError
from .depthwise import keep_depthwise_in_float32
from .plan import default_warmup

OPTIMIZERS, SCHEDULES = ("adamw", "sgd"), ("cosine", "step")

Losses = Callable[[], dict[str, Tensor]]


class NotFiniteError(FpnkitError):
    """A loss is not finite; the weights were not changed."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimiser, batch, learning rate and precision.

    Attributes:
        optimizer: `adamw` or `sgd`.
        batch_size: images a step, of all processes together.
        accumulate: parts that a batch is computed in, to need less memory.
        lr: peak learning rate.
        backbone_lr_factor: of parameters named `backbone.*`, times `lr`: lower, to keep what pretraining learnt.
        weight_decay: of weights; biases and norms have none.
        momentum: of `sgd`.
        schedule: `cosine` to zero, or `step`: a tenth after each of `drops`.
        drops: shares of the training.
        warmup_steps: linear rise to `lr`; None for what fits the length, see `plan_length`.
        clip_norm: largest norm of the gradient.
        precision: `bf16` mixed precision or `float32`.
    """

    optimizer: str = "adamw"
    batch_size: int = 8
    accumulate: int = 1
    lr: float = 4e-4
    backbone_lr_factor: float = 0.3
    weight_decay: float = 0.02
    momentum: float = 0.9
    schedule: str = "cosine"
    drops: tuple[float, ...] = (0.67, 0.89)
    warmup_steps: int | None = None
    clip_norm: float = 5.0
    precision: str = "bf16"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, got {self.batch_size}")
        if not 1 <= self.accumulate <= self.batch_size:
            raise ConfigError(f"accumulate must lie in 1..batch_size ({self.batch_size}), got {self.accumulate}")
        for name in ("lr", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("warmup_steps", "backbone_lr_factor", "weight_decay"):
            if not 0 <= (getattr(self, name) or 0) < math.inf:
                raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum must be 0 or more and below 1, got {self.momentum}")
        if list(self.drops) != sorted(self.drops) or not all(0 < each < 1 for each in self.drops):
            raise ConfigError(f"drops must be rising shares between 0 and 1, got {self.drops}")
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")


class Optimizer:
    """An optimiser with its schedule over the trainable parameters of a detector.

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
        self.warmup_steps = default_warmup(steps) if config.warmup_steps is None else config.warmup_steps
        groups = parameter_groups(detector, config)
        self.inner: torch.optim.Optimizer
        if config.optimizer == "sgd":
            self.inner = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
        else:
            self.inner = torch.optim.AdamW(groups, lr=config.lr)

    def learning_rate(self, step: int) -> float:
        """Of the step after so many."""
        warmup, share = min(1.0, (step + 1) / max(1, self.warmup_steps)), step / self.steps
        if self.config.schedule == "step":
            return self.config.lr * warmup * 0.1 ** sum(share >= drop for drop in self.config.drops)
        return self.config.lr * warmup * 0.5 * (1 + math.cos(math.pi * share))

    def step(
        self, done: int, parts: Sequence[Losses], *, mean: Callable[[Tensor], Tensor] = lambda values: values
    ) -> dict[str, float]:
        """Compute losses and gradients, and update the weights.

        Args:
            done: steps before this one.
            parts: each computes losses by name, of a part of the batch; they are summed by name, parts are averaged.
            mean: (L,) losses of this process -> their means over all processes. Called once, after the gradients are
                computed and before the weights change, so that all processes go on or raise together.
        Returns:
            `total` and each loss.
        Raises:
            NotFiniteError: a loss is not finite; the weights were not changed.
        """
        for group in self.inner.param_groups:
            group["lr"] = self.learning_rate(done) * group["factor"]
        self.inner.zero_grad(set_to_none=True)
        summed: dict[str, Tensor] = {}
        for part in parts:
            with mixed_precision(self.device, self.config.precision):
                losses = part()
            (torch.stack(list(losses.values())).sum() / len(parts)).backward()
            for name, value in losses.items():
                summed[name] = summed.get(name, 0.0) + value.detach() / len(parts)
        means = mean(torch.stack([value.float() for value in summed.values()]))
        values = dict(zip(summed, means.tolist(), strict=True))  # all at once: a GPU is waited for here
        if not math.isfinite(sum(values.values())):
            raise NotFiniteError(", ".join(f"{name} {value:.4g}" for name, value in values.items()))
        nn.utils.clip_grad_norm_(self.detector.parameters(), self.config.clip_norm)
        self.inner.step()
        return {"total": sum(values.values()), **values}


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
