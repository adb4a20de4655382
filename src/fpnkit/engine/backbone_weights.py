"""Read ImageNet weights that lie in a file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import CheckpointError


def read_backbone_weights(path: Path) -> dict[str, Tensor]:
    """A classifier's state dict from a .safetensors file or a torch file of plain tensors.

    Raises:
        CheckpointError: missing, damaged, no state dict, or a pickle that would run code.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or damaged: {error}") from None
    except Exception as error:
        raise CheckpointError(f"{path}: not weights that can be trusted: {str(error).splitlines()[0]}") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: expected a state dict of tensors")
    return state
