"""Models as data: `ModelSpec`, presets by name, shipped weights, and other libraries' detectors into ours and back.

    spec = fpnkit.zoo.preset("faster_rcnn_r50_fpn")
    detector = fpnkit.zoo.build(spec, num_classes=20)

Names are imported when they are used: `fpnkit.zoo.shipped` needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .builder import build, build_network
    from .interop import from_state, to_state
    from .presets import PRESETS, preset
    from .shorthands import specialised
    from .spec import ModelSpec
    from .torchvision import from_torchvision, torchvision_preprocess

_NAMES = {
    "PRESETS": "presets",
    "ModelSpec": "spec",
    "build": "builder",
    "build_network": "builder",
    "from_state": "interop",
    "from_torchvision": "torchvision",
    "preset": "presets",
    "specialised": "shorthands",
    "to_state": "interop",
    "torchvision_preprocess": "torchvision",
}

__all__ = [
    "PRESETS",
    "ModelSpec",
    "build",
    "build_network",
    "from_state",
    "from_torchvision",
    "preset",
    "specialised",
    "to_state",
    "torchvision_preprocess",
]


def __getattr__(name: str) -> object:
    if name in _NAMES:
        return getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    raise AttributeError(f"module 'fpnkit.zoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
