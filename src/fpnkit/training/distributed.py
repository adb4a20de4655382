"""The processes of one training: those that torchrun started, or this one alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..detectors import FasterRCNN
from ..errors import ConfigError
from ..structures import ImageBatch, Targets


@dataclass(frozen=True)
class World:
    """Who takes part.

    Attributes:
        rank: of this process, from 0 on; 0 writes files and talks.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and talks."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether any process says so; all learn it."""
        return any(self.gather(flag))

    def gather(self, value: Any) -> list[Any]:
        """The plain value of each process, in all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Of numbers that all processes have under the same names."""
        rows = self.gather(dict(values))
        return {name: sum(row[name] for row in rows) / self.size for name in values}

    def share(self, detector: FasterRCNN) -> nn.Module:
        """A module (batch, targets) -> losses, whose gradients are means over all processes."""
        losses = _Losses(detector)
        return losses if self.size == 1 else DistributedDataParallel(losses)


def synchronised(detector: FasterRCNN, device: torch.device) -> FasterRCNN:
    """The detector with batch norms that share their statistics among all processes.

    Raises:
        ConfigError: not on GPUs: PyTorch has nothing for CPUs.
    """
    if device.type != "cuda":
        raise ConfigError("sync_norms needs GPUs: on CPUs leave norms frozen (freeze=model), or local (freeze=none)")
    return convert_sync_batchnorm(detector)


def restarted() -> bool:
    """Whether torchrun started this process again, after one of them had died."""
    return _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def join(device: str) -> World:
    """Take part in what torchrun started; alone without it.

    Args:
        device: `cuda` processes take the GPU of their local rank and talk by NCCL, others by gloo.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        # Restarted processes must not find the addresses that those before them left in torchrun's store.
        store, rank, size = next(dist.rendezvous("env://"))
        store = dist.PrefixStore(f"attempt {_restarts()}", store)
        dist.init_process_group("nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=size)
    return World(dist.get_rank(), size)


def leave() -> None:
    """The end of `join`."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


class _Losses(nn.Module):
    """DistributedDataParallel wants what it shares to be called."""

    def __init__(self, detector: FasterRCNN) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, batch: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        return self.detector.losses(batch, targets)
