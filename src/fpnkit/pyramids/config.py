"""A pyramid as data: its name in the table, its width, and the options of its own constructor."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from ..settings import checked_value, did_you_mean, plain_type
from ..structures import LevelSpec
from .pyramid import Pyramid


@dataclass(frozen=True, kw_only=True)
class PyramidConfig:
    """Which pyramid, and how it is built.

    Attributes:
        name: a key of `fpnkit.pyramids.PYRAMIDS`.
        channels: d, the width of every level.
        options: keyword-only parameters of its constructor, by name, those that are not at their default:
            `{"repeats": 5}` of `bifpn`. Callables, such as the FPN's `norm`, are for Python alone.
    Raises:
        ConfigError: an unknown name or option, for which the nearest is named, or a value of another type.
    """

    name: str = "fpn"
    channels: int = 256
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        types, defaults = self.option_types(), _defaults(_class_of(self.name))
        for name in self.options:
            if name not in types:
                raise ConfigError(
                    f"pyramid {self.name} has no option {name!r}: {did_you_mean(name, types, 'its options')}"
                    if types
                    else f"pyramid {self.name} has no option {name!r}: it has none"
                )
        checked = {name: checked_value(types[name], value, f"pyramid.{name}") for name, value in self.options.items()}
        kept = {name: value for name, value in sorted(checked.items()) if value != defaults[name]}
        object.__setattr__(self, "options", kept)
        if self.channels < 1:
            raise ConfigError(f"pyramid.channels must be 1 or more, got {self.channels}")

    def option_types(self) -> dict[str, Any]:
        """Name -> type of the options that this pyramid has."""
        return _option_types(_class_of(self.name))

    def option(self, name: str) -> Any:
        """The value of an option, its default where it is not set."""
        return self.options.get(name, _defaults(_class_of(self.name)).get(name))


def make_pyramid(config: PyramidConfig, levels: Sequence[LevelSpec]) -> Pyramid:
    """A pyramid with random weights.

    Args:
        config: which one.
        levels: the backbone's maps, finest first: `backbone.levels`.
    Raises:
        ConfigError: an option's value, or levels, that the pyramid refuses.
    """
    made: Pyramid = _class_of(config.name)(levels, config.channels, **config.options)
    return made


def _class_of(name: str) -> Any:
    from . import PYRAMIDS  # the table is made of the classes that import this package

    if name not in PYRAMIDS:
        raise ConfigError(f"there is no pyramid named {name!r}: {did_you_mean(name, PYRAMIDS, 'the pyramids')}")
    return PYRAMIDS[name]


def _option_types(kind: Any) -> dict[str, Any]:
    """Of what stands in JSON; a parameter without annotation has the type of its default."""
    hints = typing.get_type_hints(kind.__init__)
    types = {name: hints.get(name, type(default)) for name, default in _defaults(kind).items()}
    return {name: each for name, each in types.items() if plain_type(each)}


def _defaults(kind: Any) -> dict[str, Any]:
    """Keyword-only parameters with their defaults."""
    parameters = inspect.signature(kind.__init__).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}
