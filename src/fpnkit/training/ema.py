"""An average of the weights that a training went through (EMA): it finds more than any single state."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """A copy of a network that follows it slowly.

    Args:
        network: to follow.
        decay: share of the average that a step keeps; the first steps keep less, (1 + t) / (10 + t).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval()
        for layer in self.network.modules():
            layer.__dict__.pop("forward", None)  # a forward that was replaced still belongs to the original
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)

    @torch.no_grad()
    def follow(self, network: nn.Module, step: int) -> None:
        """After step number `step`, counted from 1."""
        keep = min(self.decay, (1 + step) / (10 + step))
        pairs = list(zip(_tensors(self.network), _tensors(network), strict=True))
        moving = [(ours, theirs.to(ours.dtype)) for ours, theirs in pairs if ours.is_floating_point()]
        get_ema_multi_avg_fn(keep)([ours for ours, _ in moving], [theirs for _, theirs in moving], step)
        for ours, theirs in pairs:
            if not ours.is_floating_point():
                ours.copy_(theirs)


def _tensors(network: nn.Module) -> list[Tensor]:
    return list(network.state_dict().values())
