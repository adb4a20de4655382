"""Weights that come inside the package, checked against their hash before they are read."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import CheckpointError

FOLDER = Path(__file__).parent / "weights"

SHA256 = {
    "coco80": "3be72180a6bba251a7c41ddddfa51db4f5cef03a56ac75979824239169248145",
    "default": "eb1194f6b1915083247e01f2dc430f1d1a455a1a74148ca9829fb90e682f0628",
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


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
