"""Which model is trained, from which weights, by which recipe."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..detectors import Detector
from ..errors import ConfigError
from ..settings import as_plain, fields_of, updated, with_settings
from ..weights import InitialWeights
from ..zoo import ModelSpec, preset, specialised
from .recipe import TrainConfig

DEFAULT_WEIGHTS = "coco80"

OTHER_WEIGHTS = "coco80, default, a run, an fpnkit file, timm (ImageNet, downloaded), a classifier's file, or random"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a training begins with.

    Attributes:
        model: how the detector is built, or the detector itself.
        weights: that it is filled with; None leaves a detector as it is.
        config: the recipe.
        note: a sentence on the choice, for people.
    """

    model: ModelSpec | Detector
    weights: InitialWeights | None
    config: TrainConfig
    note: str


def choose(
    model: ModelSpec | Detector | str | None = None,
    weights: InitialWeights | str | None = None,
    *,
    parts: Mapping[str, Any] | None = None,
    recipe: Path | None = None,
    config: TrainConfig | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Choice:
    """Put a choice together, with defaults that fine-tune the shipped `coco80`.

    Args:
        model: a spec, a preset's name or a detector; by default that of `weights`.
        weights: see `InitialWeights.parse`; by default `coco80` where no model is named, else random ones.
        parts: other parts of the model, see `fpnkit.zoo.specialised`.
        recipe: a JSON file, see `read_recipe`; its model and weights count where none are named.
        config: a recipe from Python instead.
        settings: fields of the recipe and, behind `model.`, of the spec, which change both; see `named`.
    Raises:
        ConfigError: an unknown name, for which the nearest is given; or values that do not fit together.
        CheckpointError: the weights cannot be read.
    """
    if recipe is not None and config is not None:
        raise ConfigError("recipe and config exclude each other: pass one of them")
    config = config or TrainConfig()
    if recipe is not None:
        config, recipe_model, recipe_weights = read_recipe(recipe)
        model, weights = (recipe_model if model is None else model), (recipe_weights if weights is None else weights)
    chosen = InitialWeights.parse(weights) if isinstance(weights, str) else weights
    if isinstance(model, Detector):
        config, _ = with_named(config, None, settings or {})
        return Choice(model=model, weights=chosen, config=config, note=f"trains the given {type(model).__name__}")
    named = chosen is not None
    if chosen is None:
        chosen = InitialWeights.parse(DEFAULT_WEIGHTS if model is None and not parts else "random")
    if model is None:
        model = chosen.spec or InitialWeights.parse(DEFAULT_WEIGHTS).spec
    spec = preset(model) if isinstance(model, str) else model
    if spec is None:
        raise ConfigError("the weights are of a detector of your own: pass it as model")
    config, changed = with_named(config, specialised(spec, **(parts or {})), settings or {})
    return Choice(model=changed or spec, weights=chosen, config=config, note=_note(chosen, named))


def with_named(
    config: TrainConfig, spec: ModelSpec | None, settings: Mapping[str, Any]
) -> tuple[TrainConfig, ModelSpec | None]:
    """A recipe and a spec with other values.

    Args:
        config, spec: to be changed; the spec None where a detector was given.
        settings: names and values. A field inside of another has a dot in its name (`optim.lr`), or stands alone
            where the recipe has only one of that name (`lr`); those of the spec begin with `model.`.
    Raises:
        ConfigError: an unknown name, for which the nearest is given; a value that it cannot have.
    """
    words = {_whole(name): value for name, value in _flat(settings)}
    of_model = {name: value for name, value in words.items() if name.partition(".")[0] == "model"}
    if of_model and spec is None:
        raise ConfigError(f"{next(iter(of_model))}: a given detector is built already: change the detector itself")
    if spec is not None:
        spec = with_settings(_Model(model=spec), [f"{name}={_word(value)}" for name, value in of_model.items()]).model
    others = [f"{name}={_word(value)}" for name, value in words.items() if name not in of_model]
    return with_settings(config, others), spec


def read_recipe(path: Path) -> tuple[TrainConfig, ModelSpec | None, str | None]:
    """A recipe from a JSON file: fields of `TrainConfig`, and perhaps `model`, a preset's name or a spec, and
    `weights`. A run's `config.json` is one, too, also of an older fpnkit.

    Returns:
        The recipe, its model and where the weights come from, None where it does not say.
    Raises:
        ConfigError: no such file, no JSON, an unknown field or a value that it cannot have.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ConfigError(f"expected fields and values, got a {type(content).__name__}")
        of_run = isinstance(content.get("train"), dict)
        fields = dict(content["train"]) if of_run else dict(content)
        named = {name: fields.pop(name, content.get(name)) for name in ("model", "weights")}
        model = named["model"]
        if model is not None:
            model = preset(model) if isinstance(model, str) else ModelSpec.from_plain(model)
        return updated(TrainConfig(), fields), model, named["weights"]
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from None


@dataclass(frozen=True)
class _Model:
    """Gives the fields of a spec the names that they have among the settings."""

    model: ModelSpec


def _note(weights: InitialWeights, named: bool) -> str:
    if not named and weights.text == DEFAULT_WEIGHTS:
        return f"fine-tunes the shipped coco80; weights=WHAT starts from something else: {OTHER_WEIGHTS}"
    if weights.kind == "random":
        return (
            "starts from random weights, which need long training and much data; "
            f"weights=WHAT starts from trained ones: {OTHER_WEIGHTS}"
        )
    return f"starts from {weights}"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        value = as_plain(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _whole(name: str) -> str:
    """The name of a field of the recipe with those that it stands in."""
    known = fields_of(TrainConfig())
    if "." in name or name in known:
        return name
    ending = [each for each in known if each.endswith(f".{name}")]
    return ending[0] if len(ending) == 1 else name


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
