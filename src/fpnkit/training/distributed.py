"""The processes of one training: those that torchrun started, or this one alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..detectors import Detector
from ..errors import ConfigError
from ..structures import ImageBatch, Targets


@dataclass(frozen=True)
class Distributed:
    """This process among those that train together; by default it is alone.

    Attributes:
        rank: of this process, from 0 on.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean of one small tensor over all processes, which all get: a single all-reduce.

        Args:
            values: of the same shape in every process. What is not finite in one is not finite in the mean.
        """
        if self.size == 1:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def gather(self, value: Any) -> list[Any]:
        """The plain values of all processes, in each of them; pickled, so not for every step."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def parallel(self, detector: Detector) -> nn.Module:
        """A module (batch, targets) -> losses, whose gradients are means over all processes."""
        losses = _Losses(detector)
        return losses if self.size == 1 else DistributedDataParallel(losses)


def synchronised(detector: Detector, device: torch.device) -> Detector:
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


def join_processes(device: str) -> Distributed:
    """Take part in what torchrun started; alone without it.

    Args:
        device: `cuda` processes take the GPU of their local rank and communicate by NCCL, others by gloo.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Distributed()
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        # Restarted processes must not find the addresses that those before them left in torchrun's store.
        store, rank, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
        store = dist.PrefixStore(f"attempt {_restarts()}", store)  # type: ignore[attr-defined]
        dist.init_process_group("nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=size)
    return Distributed(dist.get_rank(), size)


def leave_processes() -> None:
    """The end of `join_processes`."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


class _Losses(nn.Module):
    """DistributedDataParallel averages the gradients of what is called."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, batch: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        return self.detector.losses(batch, targets)
