"""What a training state says about its run, and whether another run can go on from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..data.annotated import AnnotatedImages
from ..device import machine
from ..errors import CheckpointError
from ..settings import as_plain
from ..weights.checkpoint import ModelCard
from .recipe import TrainConfig

FORMAT = 2

WITHOUT_INFLUENCE = ("device", "workers", "evaluate_every", "val_losses", "checkpoint_seconds", "keep")
"""Fields of the recipe that a resumed run may change."""


def description(config: TrainConfig, card: ModelCard, weights: str | None) -> dict[str, Any]:
    """What must be the same in the run that made a state and the one that resumes it, in plain lists and values.

    Args:
        config: the recipe as it was given.
        card: of the detector.
        weights: where its first weights came from.
    """
    recipe = {name: value for name, value in as_plain(config).items() if name not in WITHOUT_INFLUENCE}
    model = card.name if card.spec is None else as_plain(card.spec)
    return {**recipe, "weights": weights, "classes": list(card.classes), "model": model}


def circumstances(
    train_data: AnnotatedImages, val_data: AnnotatedImages, device: torch.device, processes: int
) -> dict[str, str]:
    """What a resumed run may have otherwise, but then it does not end bit for bit as an uninterrupted one."""
    where = machine()
    return {
        "training data": fingerprint(train_data),
        "validation data": fingerprint(val_data),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {where['CPU']}",
        "threads": where["threads"],
        "torch": where["torch"],
        "processes": str(processes),
    }


def fingerprint(data: AnnotatedImages) -> str:
    """A hash of the classes, and of the name, size and objects of each image, in their order."""
    hashed = hashlib.sha256(repr(data.classes).encode("utf-8", "backslashreplace"))
    for each in data.records:
        row = (each.file_name, each.width, each.height, each.boxes_xyxy, each.labels, each.crowd)
        hashed.update(repr(row).encode("utf-8", "backslashreplace"))
    return hashed.hexdigest()


def require_resumable(state: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    """
    Args:
        state: a training state.
        wanted: `description` of the run that wants to go on.
        path: of the state.
    Raises:
        CheckpointError: another format, model, recipe or start.
    """
    if state.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: a training state of another fpnkit (format {state.get('format', 1)}, this one resumes {FORMAT}): "
            f"start a new run from its weights, {path.parent.parent}"
        )
    made_with = _flat(state["description"])
    for name, value in _flat(wanted).items():
        there = made_with.get(name)
        if there != value:
            raise CheckpointError(f"{path}: made with {name} {there!r}, not {value!r}: resume with the same arguments")


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """A sentence for each of the `circumstances` that has changed."""
    told = []
    for name, value in now.items():
        if before.get(name) == value:
            continue
        if name == "validation data":
            told.append("the validation data has changed: figures before and after are not comparable")
            continue
        change = "has changed" if name == "training data" else f"was {before.get(name)}, and is {value}"
        told.append(f"{name} {change}: the weights will not be the same as those of an uninterrupted run")
    return told


def _flat(described: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Names with dots -> values."""
    flat: dict[str, Any] = {}
    for name, value in described.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
