"""Weights of a classifier in a file, for a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..backbones import Backbone
from ..backbones.timm import load_imagenet_weights
from ..errors import CheckpointError
from ..files import require_file
from .checkpoint import read_plain


def load_backbone_weights(backbone: Backbone, path: Path) -> None:
    """Fill a backbone from a classifier's file; see `load_imagenet_weights`.

    Raises:
        CheckpointError: the file cannot be used, or is of another network.
    """
    state = read_state_dict(path)
    try:
        load_imagenet_weights(backbone, state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A network's state dict from a .safetensors file or a torch file of plain tensors.

    Raises:
        CheckpointError: missing, damaged, no state dict, not finite, or a pickle that would run code.
    """
    if path.suffix == ".safetensors":
        require_file(path)
        try:
            state: Any = load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: not a safetensors file, or damaged: {error}") from None
    else:
        state = read_plain(path)
    for key in ("state_dict", "model"):
        state = state[key] if isinstance(state, dict) and isinstance(state.get(key), dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: expected a state dict of tensors")
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: {name} holds values that are not finite")
    return state
