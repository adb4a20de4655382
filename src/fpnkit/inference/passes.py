"""Several image scales at test time: the featurized image pyramid of figure 1 (a), around a trained detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..data.pixels import PreprocessConfig
from ..errors import ConfigError
from ..outputs import Arrays, Postprocess
from .boxes import nms

LARGEST = 10.0
"""A percentage taken for a factor would ask for more memory than any machine has."""


def checked(scales: Sequence[float]) -> tuple[float, ...]:
    """Scales in rising order, each once: the order in which they are named must not matter.

    Raises:
        ConfigError: none, or one that is not above 0 and at most `LARGEST`.
    """
    bad = [scale for scale in scales if not 0 < scale <= LARGEST]
    if bad or not scales:
        found = ", ".join(f"{scale:g}" for scale in bad) or "none"
        raise ConfigError(
            f"scales are one or more factors of the network's image size, above 0 and at most {LARGEST:g}, got {found}"
        )
    return tuple(sorted({float(scale) for scale in scales}))


def scaled(config: PreprocessConfig, scale: float) -> PreprocessConfig:
    """The same preprocessing for images of another size."""
    short_side, long_side = (max(1, round(side * scale)) for side in (config.short_side, config.long_side))
    return replace(config, short_side=short_side, long_side=long_side)


def merge(found: Sequence[Arrays], postprocess: Postprocess) -> Arrays:
    """The detections of one image from several scales as one list, best first.

    Args:
        found: what each scale found, all in the same pixels.
        postprocess: its NMS threshold and number of detections.
    """
    every = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    kept = nms(every["boxes_xyxy"], every["scores"], every["labels"], postprocess.nms_iou)
    return {name: values[kept[: postprocess.detections]] for name, values in every.items()}
