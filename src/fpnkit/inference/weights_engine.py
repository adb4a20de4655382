"""Weights as engines: the network in PyTorch, or a graph that is made of it once and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..data.pixels import PreprocessConfig
from ..detectors import Detector
from ..errors import ConfigError
from ..files import sha256
from ..graph.exported import Exported, is_exported
from ..graph.write import write_graph
from ..outputs import Postprocess
from ..weights.checkpoint import ModelCard, load_weights
from .engines import Engine
from .graph_cache import cache_folder, open_exported, published
from .torch_engine import TorchEngine

_MAKERS = ("torch", "torchvision", "timm", "onnx", "onnxscript")
"""Packages on whose versions a graph depends, besides fpnkit's own code."""


def engine_of_weights(
    weights: Path,
    engine: str,
    device: torch.device,
    *,
    precision: str,
    streams: int,
    compiled: bool,
    numbers: Mapping[str, Any],
    detector: Detector | None,
    on_message: Callable[[str], None],
) -> tuple[Engine, tuple[str, ...], PreprocessConfig]:
    """An engine, its classes and its preprocessing.

    Args:
        weights: of `save_weights`.
        engine: `torch`, or a runtime, for which a graph is made unless it is there.
        numbers: fields of `Postprocess` that are to differ from the model's own.
        device, precision, streams, compiled, detector, on_message: as for `predictor.load`.
    Raises:
        CheckpointError: the weights are damaged.
        ConfigError: numbers out of range, `compiled` with a graph, or `streams` without one.
        ExportError: the detector cannot be exported.
    """
    if engine != "torch" and compiled:
        raise ConfigError(f"compiled=True is for the engine torch: {engine} runs a graph, which is compiled already")
    if engine == "torch" and streams > 1:
        raise ConfigError(f"streams={streams} is for engines that run a graph: a network in PyTorch has one at a time")
    network, card = load_weights(weights, detector=detector)
    network.postprocess = replace(network.postprocess, **numbers)
    if engine == "torch":
        made: Engine = TorchEngine(network, device, precision, compiled=compiled)
    else:
        folder = _kept_graph(weights, network, card, on_message)
        made, _ = open_exported(folder, engine=engine, precision=precision, streams=streams)
    return made, card.classes, card.preprocess


def describe(card: ModelCard, detector: Detector, **choices: Any) -> Exported:
    """What a graph of this detector is; `choices` are the fields of `Exported` that neither of them knows."""
    return Exported(
        model=card.name,
        classes=card.classes,
        preprocess=card.preprocess,
        postprocess=detector.postprocess,
        outputs=detector.outputs,
        **choices,
    )


def _kept_graph(weights: Path, detector: Detector, card: ModelCard, on_message: Callable[[str], None]) -> Path:
    """The folder with the ONNX graph of weights, made when it is not there yet."""
    folder = cache_folder() / "graphs" / _key(weights, detector.postprocess)
    if not is_exported(folder):
        on_message(f"preparing a graph of {weights.name}, once; it is kept in {folder}")
        with published(folder) as made:
            choices = {"format": "onnx", "precision": "float32", "pixels": True, "resizes": False, "size_hw": None}
            write_graph(made, detector, describe(card, detector, **choices))
    return folder


def _key(weights: Path, postprocess: Postprocess) -> str:
    """Of all that a graph depends on: weights, numbers, packages, fpnkit's own code."""
    own_code = [sha256(path) for path in sorted(Path(__file__).parent.parent.rglob("*.py"))]
    causes = [sha256(weights), str(sorted(asdict(postprocess).items()))]
    causes += [*(f"{name} {version(name)}" for name in _MAKERS), *own_code]
    return hashlib.sha256("\n".join(causes).encode()).hexdigest()[:24]
