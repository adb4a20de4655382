"""Write annotated images in another format, with copies of the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..settings import did_you_mean
from .annotated import AnnotatedImages
from .formats import FORMATS


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        images, boxes: how many.
        left_out: boxes that the format has no place for.
    """

    images: int
    boxes: int
    left_out: int


def convert(
    splits: Mapping[str, AnnotatedImages],
    to: str,
    out: Path,
    *,
    on_image: Callable[[], None] = lambda: None,
) -> Converted:
    """Write splits of the same classes.

    Args:
        splits: name -> data.
        to: a name in `FORMATS`, whose `writes` and `loses` say what comes of it.
        out: a new or empty folder.
        on_image: called after each copied image.
    Raises:
        ConfigError: no such format, or something is in the folder.
    """
    if to not in FORMATS:
        raise ConfigError(f"to: there is no format {to!r}: {did_you_mean(to, sorted(FORMATS), 'the formats')}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: not an empty folder: name another, nothing is overwritten")
    out.mkdir(parents=True, exist_ok=True)
    left_out = FORMATS[to].write(splits, out, on_image)
    records = [record for dataset in splits.values() for record in dataset.records]
    return Converted(len(records), sum(len(record.objects) for record in records) - left_out, left_out)
