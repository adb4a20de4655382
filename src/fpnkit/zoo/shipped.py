"""Weights that come inside the package, checked against their hash before they are read."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError
from ..files import sha256

FOLDER = Path(__file__).parent / "weights"

SHA256 = {
    "coco80": "3be72180a6bba251a7c41ddddfa51db4f5cef03a56ac75979824239169248145",
    "default": "d95adaa84472db35b6f3011e9e7b9f1f024021e03125a64661529e38b63b94b3",
}
"""Name -> hash of `weights/NAME.safetensors`; a test recomputes them."""


def shipped_weights(name: str) -> Path:
    """The file of a shipped model.

    Args:
        name: a key of `SHA256`.
    Raises:
        CheckpointError: the file is missing or is not the one that was shipped.
    """
    path = FOLDER / f"{name}.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{path}: the shipped weights are missing: reinstall fpnkit")
    found = sha256(path)
    if found != SHA256[name]:
        raise CheckpointError(
            f"{path}: the shipped weights were changed (sha256 {found[:12]}..., expected {SHA256[name][:12]}...): "
            "reinstall fpnkit"
        )
    return path
