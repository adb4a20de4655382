"""Which file a name, a run's folder or a path means."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError
from ..settings import did_you_mean
from ..zoo.shipped import SHA256, shipped_weights


def find_weights(model: str | Path) -> Path:
    """The weights file that a name, a run's folder or a path means.

    Args:
        model: the name of shipped weights, the folder of a training, or a file.
    Raises:
        CheckpointError: there is none; the nearest name is given.
    """
    path = Path(model)
    if str(model) in SHA256:
        return shipped_weights(str(model))
    if path.is_dir():
        for name in ("best", "last"):
            weights = path / "weights" / f"{name}.safetensors"
            if weights.is_file():
                return weights
        raise CheckpointError(
            f"{path}: the folder holds no weights/best.safetensors: is it a training run or an export?"
        )
    if not path.exists():
        hint = did_you_mean(str(model), SHA256, "shipped models")
        raise CheckpointError(f"{model}: no such model, run folder or weights file; {hint}")
    return path
