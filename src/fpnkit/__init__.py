"""fpnkit: Feature Pyramid Networks (arXiv:1612.03144) as parts, detectors and tools.

    detector = fpnkit.load("default")
    result = detector("street.jpg")

    run = fpnkit.train("cells/", "runs/cells")
    detector = run.predictor()

Nothing heavy is imported before it is used, so that `import fpnkit` and `fpnkit --help` answer at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:
    from . import backbones, data, detectors, errors, heads, ops, pyramids, structures, zoo
    from .inference.predictor import Predictor, Result, load
    from .training.run import train

_ROOMS = ("backbones", "data", "detectors", "errors", "heads", "ops", "pyramids", "structures", "zoo")
_NAMES = {
    "load": "inference.predictor",
    "Predictor": "inference.predictor",
    "Result": "inference.predictor",
    "train": "training.run",
}

__all__ = [
    "Predictor",
    "Result",
    "__version__",
    "backbones",
    "data",
    "detectors",
    "errors",
    "heads",
    "load",
    "ops",
    "pyramids",
    "structures",
    "train",
    "zoo",
]


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    if name in _NAMES:
        return getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    raise AttributeError(f"module 'fpnkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
