"""The three numbers that decide which predictions become detections."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError


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
