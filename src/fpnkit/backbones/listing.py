"""Which networks of timm can be a backbone."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import timm as timm_library
import torch

from ..errors import ConfigError
from ..settings import did_you_mean
from .timm import timm

UNFIT_FAMILIES = ("gemma4_vit",)
"""Modules of timm whose networks run on no image here; tools/backbones_table.py tries one of every family."""


@dataclass(frozen=True, kw_only=True)
class TimmNetwork:
    """A network of timm.

    Attributes:
        name: to pass to `fpnkit.backbones.timm` and in `BackboneConfig`.
        pretrained: tags of the weights that timm can download; the first is what the bare name takes.
        strides, channels, parameters: of the backbone, once it was built; None before.
        problem: why it cannot be a backbone, where building it failed.
    """

    name: str
    pretrained: tuple[str, ...]
    strides: tuple[int, ...] | None = None
    channels: tuple[int, ...] | None = None
    parameters: int | None = None
    problem: str | None = None


def timm_networks(pattern: str = "*", *, probe: bool = False) -> list[TimmNetwork]:
    """The networks of timm that can be a backbone.

    Args:
        pattern: of names, with `*` and `?`.
        probe: build each without weights, about half a second a network, and say which strides and channels it gives.
    Raises:
        ConfigError: no name matches.
    """
    unfit = {name for family in UNFIT_FAMILIES for name in _of_family(family)}
    names = [name for name in timm_library.list_models(pattern) if name not in unfit]
    if not names:
        hint = did_you_mean(pattern.strip("*"), timm_library.list_models(), "its networks")
        raise ConfigError(f"no network of timm has a name like {pattern!r}: {hint}")
    tags = defaultdict(list)
    for each in timm_library.list_pretrained(pattern):
        name, _, tag = each.partition(".")
        tags[name].append(tag)
    found = [TimmNetwork(name=name, pretrained=tuple(_first_is_default(name, tags[name]))) for name in names]
    return [_probed(each) for each in found] if probe else found


def _of_family(family: str) -> list[str]:
    return timm_library.list_models(module=family) if family in timm_library.list_modules() else []


def _first_is_default(name: str, tags: list[str]) -> list[str]:
    default = getattr(timm_library.get_pretrained_cfg(name), "tag", None)
    return sorted(tags, key=lambda tag: tag != default)


def _probed(network: TimmNetwork) -> TimmNetwork:
    try:
        with torch.device("meta"):
            backbone = timm(network.name)
    except ConfigError as error:
        return TimmNetwork(name=network.name, pretrained=network.pretrained, problem=str(error))
    return TimmNetwork(
        name=network.name,
        pretrained=network.pretrained,
        strides=tuple(level.stride for level in backbone.levels),
        channels=tuple(level.channels for level in backbone.levels),
        parameters=sum(each.numel() for each in backbone.parameters()),
    )
