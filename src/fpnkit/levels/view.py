"""What each level of the pyramid made of a photograph: the RPN's objectness, anchors, and the objects' sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..inference.boxes import area
from ..inference.engines import LevelView
from ..inference.predictor import Picture, Predictor, Result

if TYPE_CHECKING:
    from ..detectors import Detector


@dataclass(frozen=True)
class Eq1Step:
    """The objects that eq. 1 gives to one level.

    Attributes:
        number: the k of P_k.
        stride: of the level.
        low, high: sqrt(w h) in pixels of the network, `low` itself included; 0 and infinity at the ends.
    """

    number: int
    stride: int
    low: float
    high: float


@dataclass(frozen=True)
class PyramidView:
    """What a pyramid made of a photograph.

    Attributes:
        result: the detections of the same pass, in the photograph's own pixels.
        network_wh: width and height in pixels of the image as the network saw it, without padding.
        levels: finest first.
    """

    result: Result
    network_wh: tuple[int, int]
    levels: tuple[LevelView, ...]

    def object_sizes(self) -> np.ndarray:
        """(K,) sqrt(w h) of the detections in pixels of the network, the size of eq. 1."""
        (width, height), (own_width, own_height) = self.network_wh, self.result.size_wh
        return np.sqrt(area(self.result.boxes_xyxy) * (width / own_width) * (height / own_height))

    def heat(self, level: LevelView, width: int, height: int) -> np.ndarray:
        """The objectness of a level laid over the photograph drawn at another size: (height, width) in 0..1.

        Between the places that its anchors are centred on it is interpolated linearly, outside them continued.
        """
        rows, columns = level.objectness.shape
        across = np.clip(_cells(width, self.network_wh[0], level) - 0.5, 0, columns - 1)
        down = np.clip(_cells(height, self.network_wh[1], level) - 0.5, 0, rows - 1)
        lines = np.stack([np.interp(across, np.arange(columns), row) for row in level.objectness])
        above = np.minimum(down.astype(int), max(rows - 2, 0))
        below, share = np.minimum(above + 1, rows - 1), (down - above)[:, None]
        return lines[above] * (1 - share) + lines[below] * share


def view_levels(predictor: Predictor, picture: Picture, *, min_score: float = 0.5) -> PyramidView:
    """Detect, and keep what each level contributed; one pass.

    Args:
        predictor: of one scale, 1, with a network.
        picture: as for `Predictor`.
        min_score: weaker detections are left out.
    Raises:
        DataError: the image cannot be read.
        ConfigError: `min_score` out of range, a predictor of other scales, or a detector without levels.
    """
    result, inspected = predictor.inspect(picture, min_score=min_score)
    height, width = predictor.preprocess.resized_hw(*result.image.shape[:2])
    return PyramidView(result, (width, height), inspected.levels)


def eq1_steps(detector: Detector) -> list[Eq1Step]:
    """The object sizes that go to each level, finest first, found by asking the detector for squares.

    Raises:
        ConfigError: it does not assign objects to levels by their size.
    """
    import torch

    sides = np.logspace(0, 14, 14 * 4096 + 1, base=2, dtype=np.float32)
    squares = torch.from_numpy(np.stack([np.zeros_like(sides)] * 2 + [sides] * 2, axis=1))
    levels, index = detector.assign_levels(squares.to(next(detector.parameters()).device))
    counts = [int((index < place).sum()) for place in range(1, len(levels))]
    borders = [0.0, *(float(sides[count]) if count < len(sides) else math.inf for count in counts), math.inf]
    return [
        Eq1Step(level.number, level.stride, low, high)
        for level, low, high in zip(levels, borders, borders[1:], strict=False)
    ]


def _cells(count: int, pixels: int, level: LevelView) -> np.ndarray:
    """Where `count` samples spread over `pixels` lie on the map, in cells; the anchors of cell i are at i + 0.5."""
    return (np.arange(count) + 0.5) * (pixels / count / level.stride) - level.anchor_offset + 0.5
