"""Training: a whole one in one call, or its parts.

    run = fpnkit.train("cells/", "runs/cells", minutes=20)

`train` calls `choose` (model, weights, recipe), `read_train_and_val`, `prepare` and `Trainer.run`, one after the other.
Names are imported when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .choice import Choice, choose
    from .data import read_train_and_val
    from .ema import EMA
    from .optimize import Optimizer, OptimizerConfig
    from .plan import plan_length
    from .recipe import TrainConfig
    from .run import Run, prepare, train
    from .trainer import DryRun, Trainer
    from .watcher import Watcher

_NAMES = {
    "EMA": "ema",
    "Choice": "choice",
    "DryRun": "trainer",
    "Optimizer": "optimize",
    "OptimizerConfig": "optimize",
    "Run": "run",
    "TrainConfig": "recipe",
    "Trainer": "trainer",
    "Watcher": "watcher",
    "choose": "choice",
    "plan_length": "plan",
    "prepare": "run",
    "read_train_and_val": "data",
    "train": "run",
}

__all__ = [
    "EMA",
    "Choice",
    "DryRun",
    "Optimizer",
    "OptimizerConfig",
    "Run",
    "TrainConfig",
    "Trainer",
    "Watcher",
    "choose",
    "plan_length",
    "prepare",
    "read_train_and_val",
    "train",
]


def __getattr__(name: str) -> object:
    if name in _NAMES:
        return getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    raise AttributeError(f"module 'fpnkit.training' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
