"""An exponential moving average (EMA) of the weights that a training goes through."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA:
    """A copy of a network whose weights are averages over the last steps.

    Args:
        network: that is trained; copied.
        decay: share of the average that a step keeps; the first steps keep less, (1 + t) / (10 + t).
    Attributes:
        network: the copy, in inference mode and without gradients.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval()
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the weights of `network` after step number `step`, counted from 1."""
        keep = min(self.decay, (1 + step) / (10 + step))
        pairs = list(zip(_tensors(self.network), _tensors(network), strict=True))
        moving = [(ours, theirs.to(ours.dtype)) for ours, theirs in pairs if ours.is_floating_point()]
        get_ema_multi_avg_fn(keep)([ours for ours, _ in moving], [theirs for _, theirs in moving], step)
        for ours, theirs in pairs:
            if not ours.is_floating_point():
                ours.copy_(theirs)


def _tensors(network: nn.Module) -> list[Tensor]:
    return list(network.state_dict().values())
