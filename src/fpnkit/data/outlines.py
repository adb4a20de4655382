"""Outlines of objects: polygons or run lengths, kept exactly as they were read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Polygons:
    """An outline of one or more polygons; an object that is partly hidden has several.

    Attributes:
        polygons: of each polygon x1, y1, x2, y2, ... in original pixels.
    """

    polygons: tuple[tuple[float, ...], ...]

    def as_coco(self) -> list[list[float]]:
        """COCO's `segmentation`."""
        return [list(each) for each in self.polygons]


@dataclass(frozen=True, slots=True)
class RunLengths:
    """A mask as COCO's run lengths: column by column, how many pixels are outside, inside, outside, ...

    Attributes:
        size_hw: height and width of the mask, which are those of its image.
        counts: the lengths, or COCO's compressed string of them.
    """

    size_hw: tuple[int, int]
    counts: tuple[int, ...] | str

    def as_coco(self) -> dict[str, Any]:
        """COCO's `segmentation`."""
        return {"size": list(self.size_hw), "counts": self.counts if isinstance(self.counts, str) else [*self.counts]}


Outline = Polygons | RunLengths


def outline_from_coco(segmentation: Any) -> Outline | None:
    """A checked `segmentation` (see `checks`) as an outline; None where there is none."""
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        return Polygons(tuple(map(tuple, segmentation)))
    counts = segmentation["counts"]
    return RunLengths(tuple(segmentation["size"]), counts if isinstance(counts, str) else tuple(counts))
