"""What a detector gives, by name, and the numbers that decide what becomes a detection. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import ConfigError

Arrays = dict[str, np.ndarray]
"""What was found in one image: name of an output -> (K, ...), best first."""


@dataclass(frozen=True)
class OutputSpec:
    """What a detector says of each of its detections under one name.

    Attributes:
        name: of the output. Names that end in `_xyxy` or `_xy` hold pixels of the network's input and are brought back
            to those of the original image; all others are passed on as they are.
        dtype: of its values, as numpy and torch call it: `float32`, `int64`.
        shape: of one detection's value: (4,) of a box, () of a score.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()

    @property
    def singular(self) -> str:
        """See `singular`."""
        return singular(self.name)


def singular(name: str) -> str:
    """What one value of an output is called: `level` of `levels`, `box_xyxy` of `boxes_xyxy`."""
    stem, underscore, suffix = name.partition("_")
    return stem.removesuffix("es" if stem == "boxes" else "s") + underscore + suffix


BASE_OUTPUTS = (
    OutputSpec("boxes_xyxy", "float32", (4,)),
    OutputSpec("scores", "float32"),
    OutputSpec("labels", "int64"),
)
"""What every detector gives of a detection, in this order."""


@dataclass(frozen=True, kw_only=True)
class Postprocess:
    """How predictions become detections. May be changed on a trained detector at any time.

    Attributes:
        min_score: weaker detections are dropped, before NMS.
        nms_iou: IoU above which the weaker of two boxes of one class is suppressed.
        detections: most that are kept an image.
    Raises:
        ConfigError: a score or IoU outside 0..1, or no detection.
    """

    min_score: float = 0.05
    nms_iou: float = 0.5
    detections: int = 100

    def __post_init__(self) -> None:
        for name in ("min_score", "nms_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"postprocess.{name} must lie in 0..1, got {getattr(self, name)}")
        if self.detections < 1:
            raise ConfigError(f"postprocess.detections must be 1 or more, got {self.detections}")
