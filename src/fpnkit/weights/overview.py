"""What there is to start from, and what is inside a model: the values that `fpnkit models` prints."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ..errors import CheckpointError
from ..files import sha256
from ..settings import did_you_mean
from ..zoo.costs import ModelCosts, model_costs
from ..zoo.presets import PRESETS
from ..zoo.shipped import SHA256, shipped_weights
from ..zoo.spec import ModelSpec
from .checkpoint import ModelCard, read_card, read_header
from .find import find_weights


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """Weights inside the package.

    Attributes:
        name: `fpnkit.load(name)`.
        card: what they are of.
        size: of the file, bytes.
    """

    name: str
    card: ModelCard
    size: int


@dataclass(frozen=True, kw_only=True)
class PresetFacts:
    """A preset, what it costs with 80 classes, and the weights of it that come with the package."""

    name: str
    spec: ModelSpec
    costs: ModelCosts
    shipped: tuple[Shipped, ...]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What is inside a model.

    Attributes:
        name: of the preset, or a short description.
        spec: None of a detector of a user's own.
        costs: with as many classes as it has, 80 of a preset; None of a detector of a user's own.
        parameters: of its tensors, buffers included; None of a preset.
        card: None of a preset, which is no weights.
        path: the file; None of a preset.
        size: of the file, bytes.
        sha256: of the file.
        fpnkit: the version that wrote it.
        run: what the training's folder says of it: `weights` that it started from, `command`.
    """

    name: str
    spec: ModelSpec | None
    costs: ModelCosts | None
    parameters: int | None = None
    card: ModelCard | None = None
    path: Path | None = None
    size: int | None = None
    sha256: str | None = None
    fpnkit: str | None = None
    run: dict[str, Any] | None = None


def shipped() -> list[Shipped]:
    """The weights inside the package."""
    made = []
    for name in SHA256:
        path = shipped_weights(name)
        made.append(Shipped(name=name, card=read_card(path), size=path.stat().st_size))
    return made


def preset_facts() -> list[PresetFacts]:
    """All presets; takes seconds, for each is built once, without weights."""
    ships = shipped()
    return [
        PresetFacts(
            name=name,
            spec=spec,
            costs=model_costs(spec),
            shipped=tuple(each for each in ships if each.card.name == name),
        )
        for name, spec in PRESETS.items()
    ]


def contents(model: str | Path) -> Contents:
    """What is inside a preset, the folder of a run, or a weights file.

    Args:
        model: a name, a folder or a file.
    Raises:
        CheckpointError: there is no such model, or it is damaged.
    """
    if str(model) in PRESETS:
        spec = PRESETS[str(model)]
        return Contents(name=str(model), spec=spec, costs=model_costs(spec))
    if not Path(model).exists() and str(model) not in SHA256:
        hint = did_you_mean(str(model), [*SHA256, *PRESETS], "shipped models and presets")
        raise CheckpointError(f"{model}: no such model, run folder or weights file; {hint}")
    path = find_weights(model)
    card, header = read_card(path), read_header(path)
    with safe_open(path, framework="pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    return Contents(
        name=card.name,
        spec=card.spec,
        costs=model_costs(card.spec, len(card.classes)) if card.spec else None,
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        card=card,
        path=path,
        size=path.stat().st_size,
        sha256=sha256(path),
        fpnkit=header.get("fpnkit") if header else None,
        run=_run_of(path),
    )


def _run_of(weights: Path) -> dict[str, Any] | None:
    """What a run's `config.json` and `environment.json` say; None beside weights that lie in no run."""
    folder = weights.parent.parent
    found: dict[str, Any] = {}
    for name, keys in (("config.json", ("weights",)), ("environment.json", ("command", "torch", "CPU"))):
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict):
            found |= {key: content[key] for key in keys if content.get(key)}
    return found or None
