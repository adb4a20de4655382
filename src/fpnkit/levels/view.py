"""What each level of the pyramid made of a photograph: the RPN's objectness, anchors, and the objects' sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..detectors import FasterRCNN
from ..errors import ConfigError
from ..inference.predictor import Picture, Predictor, Result
from ..inference.record import recorded
from ..ops.anchors import cell_anchors
from ..ops.boxes import area


@dataclass(frozen=True)
class LevelView:
    """What one level made of a photograph. Boxes are pixels of the image as the network saw it.

    Attributes:
        number: the k of P_k.
        stride: pixels from cell to cell.
        anchor_sides: sides of its square anchors.
        cell_anchors_xyxy: (A, 4) the anchors of a cell, around the origin.
        offset: where in its cell an anchor is centred, in strides.
        objectness: (h, w) in 0..1: the RPN's for the best anchor of each cell; without padding cells.
    """

    number: int
    stride: int
    anchor_sides: tuple[float, ...]
    cell_anchors_xyxy: Tensor
    offset: float
    objectness: Tensor

    def peak(self) -> tuple[Tensor, Tensor]:
        """Where objectness is highest: the cell (4,) and its anchors (A, 4), xyxy pixels."""
        row, column = divmod(int(self.objectness.argmax()), self.objectness.shape[1])
        corner = torch.tensor([column, row, column, row]) * self.stride
        cell = corner + torch.tensor([0, 0, self.stride, self.stride])
        return cell, corner + self.offset * self.stride + self.cell_anchors_xyxy


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
        size: width and height in pixels of the image as the network saw it, without padding.
        levels: finest first.
    """

    result: Result
    size: tuple[int, int]
    levels: tuple[LevelView, ...]

    def object_sizes(self) -> Tensor:
        """(K,) sqrt(w h) of the detections in pixels of the network, the size of eq. 1."""
        (width, height), (own_width, own_height) = self.size, self.result.size
        return (area(self.result.boxes_xyxy) * (width / own_width) * (height / own_height)).sqrt()

    def heat(self, level: LevelView, width: int, height: int) -> Tensor:
        """The objectness of a level laid over the photograph drawn at another size: (height, width) in 0..1.

        Between the places that its anchors are centred on it is interpolated linearly, outside them continued.
        """
        rows, columns = level.objectness.shape
        across = _cells(width, self.size[0], level) / columns * 2 - 1
        down = _cells(height, self.size[1], level) / rows * 2 - 1
        grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)
        return F.grid_sample(level.objectness[None, None], grid[None], padding_mode="border", align_corners=False)[0, 0]


def see(predictor: Predictor, picture: Picture, *, min_score: float = 0.5) -> PyramidView:
    """Detect, and keep what each level contributed; one pass.

    Args:
        predictor: of one scale, 1.
        picture: as for `Predictor`.
        min_score: weaker detections are left out.
    Raises:
        DataError: the image cannot be read.
        ConfigError: `min_score` out of range, or a predictor of other scales.
    """
    if predictor.scales != (1.0,):
        raise ConfigError("levels are shown of one pass at scale 1: load the model without scales")
    with recorded(predictor.detector.rpn) as calls:
        result = predictor(picture, min_score=min_score)
    height, width = predictor.preprocess.resized(result.size[1], result.size[0])
    ((features,), (logits, _)) = calls[-1]
    rpn, groups = predictor.detector.rpn, iter(logits)
    levels = []
    for level in rpn.levels:
        sides = rpn.anchor_sizes[level.name]
        grid = (*features[level.name].shape[-2:], len(rpn.config.ratios))
        best = torch.stack([next(groups)[0].reshape(grid).amax(dim=-1) for _ in sides]).amax(dim=0)
        inside = best[: -(-height // level.stride), : -(-width // level.stride)]
        anchors = torch.cat([cell_anchors(side, rpn.config.ratios) for side in sides])
        levels.append(
            LevelView(level.number, level.stride, sides, anchors, rpn.config.anchor_offset, inside.sigmoid().to("cpu"))
        )
    return PyramidView(result, (width, height), tuple(levels))


def eq1_steps(detector: FasterRCNN) -> list[Eq1Step]:
    """The object sizes that go to each level of the RoI head, finest first, found by asking it for squares."""
    sides = torch.logspace(0, 14, 14 * 4096 + 1, base=2)
    squares = torch.stack([torch.zeros_like(sides)] * 2 + [sides] * 2, dim=1)
    index = detector.roi.assign_levels(squares.to(next(detector.parameters()).device))
    levels = detector.roi.levels
    counts = [int((index < place).sum()) for place in range(1, len(levels))]
    borders = [0.0, *(float(sides[count]) if count < len(sides) else math.inf for count in counts), math.inf]
    return [
        Eq1Step(level.number, level.stride, low, high)
        for level, low, high in zip(levels, borders, borders[1:], strict=False)
    ]


def _cells(count: int, pixels: int, level: LevelView) -> Tensor:
    """Where `count` samples spread over `pixels` lie on the map, in cells; the anchors of cell i are at i + 0.5."""
    return (torch.arange(count) + 0.5) * (pixels / count / level.stride) - level.offset + 0.5
