"""Recipes as data: frozen configs made from JSON and from words like `optim.lr=0.01`."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .errors import ConfigError

Config = TypeVar("Config")


def with_settings(config: Config, words: Sequence[str]) -> Config:
    """A config with some fields changed.

    Args:
        config: a frozen dataclass, other ones inside.
        words: `field=value` or `outer.field=value`; several values of one field with commas.
    Raises:
        ConfigError: no such field: the nearest is named; or a value that it cannot have.
    """
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"expected FIELD=VALUE, got {word!r}: the fields are {', '.join(fields_of(config))}")
        if name not in fields_of(config):
            raise ConfigError(f"there is no field {name!r}: {_hint(name, fields_of(config))}")
        config = _changed(config, name.split("."), name, text)
    return config


def from_recipe(config: Config, path: Path) -> Config:
    """A config with the fields that a JSON file names: a recipe, or a run's `config.json`.

    Raises:
        ConfigError: no such file, no JSON, an unknown field or a value that it cannot have.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from None
    if isinstance(content, dict) and isinstance(content.get("train"), dict):
        content = content["train"]
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected fields and values, got a {type(content).__name__}")
    return with_settings(config, list(_words(content)))


def fields_of(config: Any, prefix: str = "") -> list[str]:
    """Names of all fields, of inner configs with a dot."""
    names = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        inner = dataclasses.is_dataclass(value)
        names += fields_of(value, f"{prefix}{field.name}.") if inner else [prefix + field.name]
    return names


def _words(content: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _words(value, f"{prefix}{name}.")
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            yield f"{prefix}{name}={text}"


def _hint(name: str, known: Sequence[str]) -> str:
    """The nearest names: what is written alike, or what has the same last word."""
    last = name.rpartition(".")[2]
    near = [each for each in known if each.rpartition(".")[2] == last or each.startswith(f"{name}.")]
    near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"the fields are {', '.join(known)}"


def _changed(config: Any, path: Sequence[str], whole: str, text: str) -> Any:
    name, *rest = path
    if rest:
        value = _changed(getattr(config, name), rest, whole, text)
    else:
        value = _parsed(typing.get_type_hints(type(config))[name], whole, text)
    return dataclasses.replace(config, **{name: value})


def _parsed(kind: Any, name: str, text: str) -> Any:
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    try:
        if origin in (types.UnionType, typing.Union):
            return None if text.lower() == "none" else _parsed(inside[0], name, text)
        if origin is tuple:
            values = tuple(_parsed(inside[0], name, each) for each in text.split(",") if each)
            if Ellipsis not in inside and len(values) != len(inside):
                raise ValueError
            return values
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        wanted = f"{len(inside)} values with commas" if origin is tuple else getattr(kind, "__name__", str(kind))
        raise ConfigError(f"{name} expects {wanted}, got {text!r}") from None
