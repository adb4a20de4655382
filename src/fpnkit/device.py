"""Where to compute, in which precision, and on what machine."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("float32", "bf16")


def choose_device(name: str) -> torch.device:
    """`auto` takes a CUDA GPU when there is one, else the CPU.

    Raises:
        ConfigError: an unknown device, or one that this machine lacks.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device


def mixed_precision(device: torch.device | str, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Run convolutions and matrix products in bfloat16, or everything in float32.

    Raises:
        ConfigError: not one of `PRECISIONS`.
    """
    import torch

    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")


def peak_memory(device: torch.device) -> int | None:
    """Most bytes that were in use: of a GPU, or of this process; None where the system does not tell."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    return peak_process_memory()


def peak_process_memory() -> int | None:
    """Most bytes that this process had in memory; None on Windows, which has no `resource`."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def machine() -> dict[str, str]:
    """What timings and floating-point results depend on: CPU, cores, threads, versions."""
    information = Path("/proc/cpuinfo")  # on Linux; elsewhere the standard library knows the name
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "CPU": names[0] if names else platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "threads": str(_threads()),
        "python": platform.python_version(),
        "torch": _version("torch"),
    }


def _threads() -> int:
    """Of torch where it is in use."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else os.cpu_count() or 1


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
