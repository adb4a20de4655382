"""Weights on disk: written whole, read without running anything, and where those of a new detector come from.

    weights = fpnkit.weights.InitialWeights.parse("coco80")
    transfer = weights.apply(detector, classes)

Names are imported when they are used: finding a file needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checkpoint import ModelCard, load_weights, read_card, save_weights
    from .find import find_weights
    from .initial import InitialWeights
    from .transfer import Transfer, transfer_weights

_NAMES = {
    "InitialWeights": "initial",
    "ModelCard": "checkpoint",
    "Transfer": "transfer",
    "find_weights": "find",
    "load_weights": "checkpoint",
    "read_card": "checkpoint",
    "save_weights": "checkpoint",
    "transfer_weights": "transfer",
}

__all__ = [
    "InitialWeights",
    "ModelCard",
    "Transfer",
    "find_weights",
    "load_weights",
    "read_card",
    "save_weights",
    "transfer_weights",
]


def __getattr__(name: str) -> object:
    if name in _NAMES:
        return getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    raise AttributeError(f"module 'fpnkit.weights' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
