"""Checkpoints of torchvision and detectron2 as weights here, and back."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..detectors import Detector
from ..errors import CheckpointError, ConfigError
from ..files import replaced_whole
from ..zoo.interop import NORM_EPS, coco_classes, from_state, to_state
from ..zoo.presets import preset
from .backbone import read_state_dict
from .checkpoint import ModelCard, load_weights, save_weights

EPS_THERE = {"torchvision": 0.0, "detectron2": NORM_EPS}
"""Of the batch norms in what each library releases, and in what was trained from that."""


def import_weights(
    path: Path,
    library: str,
    out: Path,
    *,
    classes: Sequence[str] | None = None,
    rgb: bool = False,
    norm_eps: float | None = None,
) -> ModelCard:
    """Write another library's checkpoint as weights that every verb takes.

    Args:
        path: a torch file of tensors, alone or under `model` or `state_dict`, or a .safetensors file.
        library: `torchvision` or `detectron2`.
        out: the .safetensors file.
        classes: names, in the order of the checkpoint; by default COCO's, where it has as many.
        rgb, norm_eps: see `fpnkit.zoo.from_state`; `norm_eps` by default from `EPS_THERE`.
    Returns:
        What was written.
    Raises:
        CheckpointError: it cannot be read safely, or is of another model.
        ConfigError: another number of classes than names.
    """
    if path.suffix == ".pkl":
        raise CheckpointError(
            f"{path}: a pickle can run code when it is read and is not opened here; where you trust it, make it a file "
            "of tensors, with torch.save: docs/interop.md shows how"
        )
    with torch.serialization.safe_globals([argparse.Namespace]):  # torchvision's training script keeps its arguments
        state = read_state_dict(path)
    eps = EPS_THERE[library] if norm_eps is None else norm_eps
    try:
        model, detector = from_state(state, library, rgb=rgb, norm_eps=eps)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    if not isinstance(detector, Detector):
        raise CheckpointError(f"{path}: an RPN alone is no detector; fpnkit.zoo.from_state gives it in Python")
    card = ModelCard.of_spec(preset(model), _class_names(classes, detector.num_classes))
    save_weights(out, detector, card)
    return card


def export_weights(weights: Path, library: str, out: Path, *, norm_eps: float = NORM_EPS) -> ModelCard:
    """Write weights as the library reads them that their model comes from.

    Args:
        weights: a .safetensors file of fpnkit.
        library: `torchvision` or `detectron2`.
        out: the .pth file: for torchvision a state dict, for detectron2 a checkpoint of its `DetectionCheckpointer`.
        norm_eps: see `fpnkit.zoo.to_state`.
    Returns:
        What `weights` hold.
    Raises:
        ConfigError: their model is not of that library.
        CheckpointError: a file that cannot be read or written.
    """
    detector, card = load_weights(weights)
    if not card.name.startswith(f"{library}_"):
        raise ConfigError(
            f"{weights} holds {card.name}, which is not a model of {library}: train {library}_r50_fpn or "
            f"{library}_r101_fpn, or import a checkpoint of {library}"
        )
    state: dict[str, Any] = to_state(detector, card.name, norm_eps=norm_eps)
    with replaced_whole(out) as temporary, temporary.open("wb") as file:
        torch.save({"model": state} if library == "detectron2" else state, file)
    return card


def _class_names(named: Sequence[str] | None, count: int) -> tuple[str, ...]:
    names = tuple(named or coco_classes())
    if len(names) != count:
        given = f"{len(names)} names were given" if named else "only COCO's 80 are known"
        raise ConfigError(f"the checkpoint has {count} classes and {given}: name all, in its order: classes=NAMES")
    return names
