"""A program of torch.export as a runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from .runtimes import Outputs, opened


class TorchRuntime:
    """A program of torch.export, on the CPU.

    Args:
        path: a .pt2 file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._run = opened(path, lambda: torch.export.load(path)).module()

    def __call__(self, images: np.ndarray, sizes: np.ndarray) -> Outputs:
        """See `runtimes.Runtime`."""
        with torch.no_grad():
            return tuple(each.numpy() for each in self._run(torch.from_numpy(images), torch.from_numpy(sizes)))

    def __reduce__(self) -> Any:
        return TorchRuntime, (self._path,)
