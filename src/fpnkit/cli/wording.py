"""The library's messages name parameters; what a verb prints names its options instead."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from functools import partial

PARAMETERS = {
    "compile": "compiled",
    "images": "images_dir",
    "resize": "resizes",
    "size": "size_hw",
    "detections": "postprocess.detections",
    "lr": "optim.lr",
    "batch_size": "optim.batch_size",
    "backbone_lr_factor": "optim.backbone_lr_factor",
    "warmup_steps": "optim.warmup_steps",
    "precision": "optim.precision",
    "crop": "augment.crop",
    "scale": "augment.scale",
}
"""Option, as argparse stores it -> what the library calls it, where that is another word."""

_names: ContextVar[Mapping[str, str]] = ContextVar("_names")


def option_names(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Parameter of the library -> option of this parser."""
    names: dict[str, str] = {}
    for action in parser._actions:
        if action.option_strings:
            option = action.option_strings[-1]
            names |= {action.dest: option, PARAMETERS.get(action.dest, action.dest): option}
    return names


@contextlib.contextmanager
def speaking_of(names: Mapping[str, str]) -> Iterator[None]:
    """Within `with`, `in_options` writes these options for the parameters."""
    token = _names.set(names)
    try:
        yield
    finally:
        _names.reset(token)


def in_options(text: str) -> str:
    """A message with the options of the verb that runs.

    A parameter is one where it cannot be a plain word: in `name=value`, which becomes `--name value`, in `name must`,
    and alone when it holds an underscore or a dot.
    """
    for name, option in _names.get({}).items():
        pattern = rf"(?<![\w./-]){re.escape(name)}(?![\w/])(?:=(?P<value>[^\s:;,)]+))?"
        text = re.sub(pattern, partial(_as_option, option), text)
    return text


def _as_option(option: str, found: re.Match[str]) -> str:
    name, value = found[0], found["value"]
    if value is not None:
        return option if value == "True" else f"{option} {value}"
    unmistakable = "_" in name or "." in name or found.string.startswith(" must", found.end())
    return option if unmistakable else name
