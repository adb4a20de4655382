"""Configs as data: frozen dataclasses to and from JSON, and changed by words like `optim.lr=0.01`."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from .errors import ConfigError

MOST_NAMES = 12
"""That an error lists."""

Config = TypeVar("Config")

Convert = Callable[[Any, Any, str], Any]
"""Type, value, name -> the value as one of that type; or a ConfigError that begins with the name."""


def with_settings(config: Config, words: Sequence[str]) -> Config:
    """A config with some fields changed.

    Args:
        config: a frozen dataclass, others inside. An inner one that is None is made with its defaults where one of its
            fields is set, and `field=none` takes it away.
        words: `field=value` or `outer.field=value`; several values of one field with commas.
    Raises:
        ConfigError: no such field: the nearest is named; or a value that it cannot have.
    """
    tree: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"expected FIELD=VALUE, got {word!r}: the fields are {', '.join(fields_of(config))}")
        *outer, last = name.split(".")
        branch = tree
        for each in outer:
            if not isinstance(branch.get(each), dict):
                branch[each] = {}
            branch = branch[each]
        branch[last] = text
    changed: Config = _filled(config, tree, _parsed, fields_of(config))  # together: two may only fit each other
    return changed


def as_plain(config: Any) -> dict[str, Any]:
    """All fields of a config as JSON holds them: inner configs as objects, tuples as lists."""
    return {name: _plain(_value_of(config, name)) for name in _hints(config)}


def from_plain(kind: type[Config], content: Any) -> Config:
    """A config from what `as_plain` gave, perhaps of an older fpnkit: fields that are missing take their defaults.

    Raises:
        ConfigError: an unknown field, for which the nearest is named, a value that its field cannot have, or nothing
            for a field that has no default.
    """
    made: Config = _made(kind, content, checked_value, fields_of(kind))
    return made


def updated(config: Config, content: Any) -> Config:
    """A config with the fields that a JSON object names; see `from_plain`."""
    changed: Config = _filled(config, content, checked_value, fields_of(config))
    return changed


def fields_of(config: Any, prefix: str = "") -> list[str]:
    """Names of all fields of a config or of its class, those of inner configs with a dot."""
    names = []
    for name, hint in _hints(config).items():
        inner = _inner(hint)
        value = None if isinstance(config, type) else _value_of(config, name)
        names += [prefix + name] if inner is None else fields_of(value or inner, f"{prefix}{name}.")
    return names


def did_you_mean(name: str, known: Collection[str], what: str) -> str:
    """How the error about an unknown name ends: the nearest one, or, where none is near, those that there are.

    Args:
        name: that is not among `known`.
        known: the names that there are.
        what: they are, in the plural: "the presets".
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    some = f"{', '.join(list(known)[:MOST_NAMES])}{', ...' * (len(known) > MOST_NAMES)}"
    return f"did you mean {near[0]}?" if near else f"{what} are {some}"


def plain_type(hint: Any) -> bool:
    """Whether values of a type can stand in JSON and in words: numbers, texts, and tuples of them."""
    origin, inside = typing.get_origin(hint), [each for each in typing.get_args(hint) if each is not Ellipsis]
    if origin in (types.UnionType, typing.Union):
        kinds = [each for each in inside if each is not types.NoneType]
        return len(kinds) == 1 and plain_type(kinds[0])
    return hint in (int, float, bool, str) or (_is_tuple(origin) and all(map(plain_type, inside)))


def checked_value(hint: Any, value: Any, name: str) -> Any:
    """A value of a plain type: lists become tuples, whole numbers floats where these are expected.

    Raises:
        ConfigError: it is of another type.
    """
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else checked_value(_not_none(hint), value, name)
    if _is_tuple(origin):
        fixed = origin is tuple and Ellipsis not in inside
        if isinstance(value, list | tuple) and not (fixed and len(value) != len(inside)):
            return tuple(checked_value(inside[0], each, name) for each in value)
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif type(value) is hint:
        return value
    raise ConfigError(f"{name} expects {_wanted(hint)}, got {value!r}")


def _hints(config: Any) -> dict[str, Any]:
    """Name -> type of every field. `options: Mapping` stands for the names that `option_types()` gives."""
    kind = config if isinstance(config, type) else type(config)
    hints = typing.get_type_hints(kind)
    named = {each.name: hints[each.name] for each in dataclasses.fields(kind)}
    if hasattr(kind, "option_types"):
        del named["options"]
        named |= {} if isinstance(config, type) else config.option_types()
    return named


def _value_of(config: Any, name: str) -> Any:
    if hasattr(config, "option_types") and name in config.option_types():
        return config.option(name)
    return getattr(config, name)


def _inner(hint: Any) -> Any:
    """The config class that a field holds, or None."""
    kind = _not_none(hint)
    return kind if dataclasses.is_dataclass(kind) else None


def _not_none(hint: Any) -> Any:
    """X of X | None; any other type as it is."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return next(each for each in typing.get_args(hint) if each is not types.NoneType)
    return hint


def _is_tuple(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Sequence)


def _near(name: str, known: Sequence[str]) -> str:
    """The nearest names: what is written alike, or what has the same last word."""
    last = name.rpartition(".")[2]
    near = [each for each in known if each.rpartition(".")[2] == last or each.startswith(f"{name}.")]
    return f"did you mean {' or '.join(near)}?" if near else did_you_mean(name, known, "the fields")


def _parsed(hint: Any, text: str, name: str) -> Any:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    try:
        if origin in (types.UnionType, typing.Union):
            return None if text.lower() == "none" else _parsed(_not_none(hint), text, name)
        if _is_tuple(origin):
            values = tuple(_parsed(inside[0], each, name) for each in text.split(",") if each)
            if origin is tuple and Ellipsis not in inside and len(values) != len(inside):
                raise ValueError
            return values
        if hint is bool:
            return {"true": True, "false": False}[text.lower()]
        return hint(text)
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{name} expects {_wanted(hint)}, got {text!r}") from None


def _wanted(hint: Any) -> str:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return f"{_wanted(_not_none(hint))} or none"
    if _is_tuple(origin):
        fixed = origin is tuple and Ellipsis not in inside
        return f"{len(inside)} values" if fixed else "several values"
    return getattr(hint, "__name__", str(hint))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return as_plain(value)
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _made(kind: Any, content: Any, convert: Convert, known: Sequence[str], prefix: str = "") -> Any:
    """A new config, of what has no default first: the rest is changed afterwards."""
    _require_object(content, prefix)
    needed, hints = {}, _hints(kind)
    for name in [each.name for each in dataclasses.fields(kind) if _has_no_default(each)]:
        if name not in content:
            raise ConfigError(f"{prefix}{name} is missing: it has no default")
        inner = _inner(hints[name])
        if inner is None:
            needed[name] = convert(hints[name], content[name], prefix + name)
        else:
            needed[name] = _made(inner, content[name], convert, known, f"{prefix}{name}.")
    return _filled(kind(**needed), content, convert, known, prefix)


def _filled(config: Any, content: Any, convert: Convert, known: Sequence[str], prefix: str = "") -> Any:
    """A config with other values. Its own fields are changed first: the names of its options may depend on them.

    Args:
        config: to be changed.
        content: field -> value, or field -> such an object for an inner config.
        convert: type, value, name -> the value of that type.
        known: names of all fields, for the error.
        prefix: of the names in errors.
    """
    _require_object(content, prefix)
    own = {each.name for each in dataclasses.fields(config)}
    fields = {name: value for name, value in content.items() if name in own}
    config = _replaced(config, fields, convert, known, prefix)
    options = {name: value for name, value in content.items() if name not in own}
    return _replaced(config, options, convert, known, prefix, options=True)


def _replaced(
    config: Any, content: Mapping[str, Any], convert: Convert, known: Sequence[str], prefix: str, options: bool = False
) -> Any:
    values, hints = {}, _hints(config)
    for name, value in content.items():
        inner, none = _inner(hints.get(name)), value is None or str(value).lower() == "none"
        if name not in hints or (inner and not none and isinstance(value, str)):
            named = [*known, *fields_of(config, prefix)]
            raise ConfigError(
                f"there is no field {prefix + name!r}: {_near(prefix + name, list(dict.fromkeys(named)))}"
            )
        if inner is None or none:
            values[name] = convert(hints[name], value, prefix + name)
        elif (before := _value_of(config, name)) is None:
            values[name] = _made(inner, value, convert, known, f"{prefix}{name}.")
        else:
            values[name] = _filled(before, value, convert, known, f"{prefix}{name}.")
    if not values:
        return config
    return dataclasses.replace(config, **({"options": {**config.options, **values}} if options else values))


def _require_object(content: Any, prefix: str) -> None:
    if not isinstance(content, Mapping):
        where = f"{prefix[:-1]} expects" if prefix else "expected"
        raise ConfigError(f"{where} fields and values, got a value of type {type(content).__name__}")


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
