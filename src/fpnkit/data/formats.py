"""The table of data formats. To add one, write its file and add its line here."""

from __future__ import annotations

from . import coco, voc, yolo
from .data_format import DataFormat

FORMATS: dict[str, DataFormat] = {each.name: each for each in (voc.FORMAT, yolo.FORMAT, coco.FORMAT)}
"""By name, in the order in which a path is tried: COCO last, for folders of the others may hold a .json, too."""


def listed(words: list[str]) -> str:
    """`a, b or c`."""
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def by_name() -> list[DataFormat]:
    """All formats in alphabetical order, as texts list them."""
    return [FORMATS[name] for name in sorted(FORMATS)]
