"""Where to compute, and in which precision."""

from __future__ import annotations

import contextlib
import resource

import torch
from torch import Tensor, nn

from ..errors import ConfigError

PRECISIONS = ("float32", "bf16")


def choose_device(name: str) -> torch.device:
    """`auto` takes a CUDA GPU when there is one, else the CPU.

    Raises:
        ConfigError: an unknown device, or one that this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device


def mixed_precision(device: torch.device | str, precision: str) -> contextlib.AbstractContextManager:
    """Run convolutions and matrix products in bfloat16, or everything in float32.

    Raises:
        ConfigError: not one of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")


def peak_memory(device: torch.device) -> int:
    """Most bytes that were in use: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def keep_depthwise_in_float32(model: nn.Module) -> None:
    """Leave trainable depthwise convolutions out of CPU mixed precision.

    Their bfloat16 backward pass on CPUs takes 3 to 15 times as long as in float32 (measured at 5x5 and at
    stride 2), which is more than the rest of the network gains.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1 and layer.weight.requires_grad:
            layer.forward = _in_float32(layer.forward)  # type: ignore[method-assign]


def _in_float32(forward):
    def run(feature: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(feature.float())

    return run
