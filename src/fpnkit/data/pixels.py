"""Resizing and padding images, and bringing boxes back: numpy in, numpy out, the same for every engine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..outputs import Arrays

SizeHW = tuple[int, int]
"""Height and width in pixels."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    """How images become network input.

    Attributes:
        short_side: pixels of the shorter side after resizing.
        long_side: cap on the longer side; it wins over `short_side`.
        mean, std: RGB, in 0..1.
        pad_to: height and width are padded to a multiple of this.
        antialias: smooth before shrinking; torchvision's detectors do not.
    """

    short_side: int
    long_side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pad_to: int = 32
    antialias: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.short_side <= self.long_side:
            raise ConfigError(f"expected 1 <= short_side <= long_side, got {self.short_side} and {self.long_side}")
        if (
            len(self.mean) != 3
            or len(self.std) != 3
            or not math.isfinite(sum(self.mean + self.std))
            or min(self.std) <= 0
        ):
            raise ConfigError(f"mean and std need three finite values, std above 0, got {self.mean} and {self.std}")
        if self.pad_to < 1:
            raise ConfigError(f"pad_to must be 1 or more, got {self.pad_to}")

    @classmethod
    def from_plain(cls, content: dict[str, Any]) -> PreprocessConfig:
        """Of what JSON holds, where tuples are lists.

        Raises:
            KeyError, TypeError: something is missing, unknown or of another type.
        """
        return cls(**{**content, "mean": tuple(content["mean"]), "std": tuple(content["std"])})

    def resized_hw(self, height: int, width: int, *, within: SizeHW | None = None) -> SizeHW:
        """Height and width after resizing: the short side as configured unless the long side is capped, or a limit."""
        # In whole numbers: as floats 97 * (800 / 97) falls short of 800 and loses a pixel.
        ratios = [(self.short_side, min(height, width)), (self.long_side, max(height, width))]
        if within:
            ratios += zip(within, (height, width), strict=True)
        wanted, given = min(ratios, key=lambda ratio: Fraction(*ratio))
        return max(1, height * wanted // given), max(1, width * wanted // given)


def resize(image: np.ndarray, size_hw: SizeHW, *, antialias: bool) -> np.ndarray:
    """Resize by bilinear interpolation to whole pixel values, so that every engine gets the very same pixels.

    Args:
        image: (H, W, 3) uint8.
        size_hw: h and w.
        antialias: smooth before shrinking.
    Returns:
        (h, w, 3) uint8, C-contiguous.
    """
    if image.shape[:2] == tuple(size_hw):
        return np.ascontiguousarray(image)
    # The shipped networks learnt from torch's values. Pillow's differ from them by one in a pixel of seven, which moves
    # boxes by up to a fifth of a pixel.
    import torch
    import torch.nn.functional as F

    source = torch.from_numpy(image if image.flags.writeable else image.copy()).permute(2, 0, 1)[None]
    resized = F.interpolate(source.float(), size_hw, mode="bilinear", antialias=antialias)
    return resized[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def pad(images: Sequence[np.ndarray], canvas_hw: SizeHW | None = None) -> np.ndarray:
    """(h, w, 3) uint8 images -> (N, H, W, 3), zeros at the right and bottom.

    Args:
        images: of any sizes.
        canvas_hw: H and W; by default as large as the largest needs, and 2 or more, for 1 is a constant to exporters.
    """
    height, width = canvas_hw or (max(2, *(image.shape[side] for image in images)) for side in (0, 1))
    batch = np.zeros((len(images), height, width, 3), dtype=np.uint8)
    for slot, image in zip(batch, images, strict=True):
        slot[: image.shape[0], : image.shape[1]] = image
    return batch


def restore(found: Mapping[str, np.ndarray], size_hw: Sequence[float], original_hw: Sequence[float]) -> Arrays:
    """Bring what was found from the pixels of the network's input to those of the original image, inside its borders.

    Args:
        found: name -> (K, ...). Names that end in `_xyxy` or `_xy` hold pixels, x before y in the last dimension.
        size_hw: height and width of the image as the network saw it.
        original_hw: height and width of the image.
    """
    scale = np.array([original_hw[1] / size_hw[1], original_hw[0] / size_hw[0]], dtype=np.float32)
    border = np.array([original_hw[1], original_hw[0]], dtype=np.float32)
    made: Arrays = {}
    for name, values in found.items():
        if name.endswith(("_xyxy", "_xy")):
            repeats = values.shape[-1] // 2
            values = np.clip(values * np.tile(scale, repeats), 0, np.tile(border, repeats))
        made[name] = values
    return made
