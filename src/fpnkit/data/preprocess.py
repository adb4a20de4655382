"""The one place where images become network input, and boxes come back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..structures import Detections, ImageBatch, Proposals

Boxes = TypeVar("Boxes", Detections, Proposals)

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


class Preprocess:
    """Resize, normalise, pad, and undo it.

    Args:
        config: see `PreprocessConfig`.
    """

    def __init__(self, config: PreprocessConfig) -> None:
        self.config = config

    def __call__(self, images: Sequence[Tensor]) -> ImageBatch:
        """(3, H, W) uint8 images of any sizes -> one batch, each resized by itself."""
        original = [(image.shape[1], image.shape[2]) for image in images]
        return self.batch([self.resize(image) for image in images], original)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after resizing: the short side as configured unless the long side is capped."""
        # In whole numbers: as floats 97 * (800 / 97) falls short of 800 and loses a pixel.
        wanted, given = self.config.short_side, min(height, width)
        if wanted * max(height, width) > self.config.long_side * given:
            wanted, given = self.config.long_side, max(height, width)
        return max(1, height * wanted // given), max(1, width * wanted // given)

    def resize(self, image: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(3, H, W) uint8 -> (3, h, w) float in 0..255; `size` overrides the configured one."""
        size = size or self.resized(image.shape[1], image.shape[2])
        resized = F.interpolate(image[None].float(), size, mode="bilinear", antialias=self.config.antialias)
        return resized[0].clamp(0, 255)

    def batch(self, resized: Sequence[Tensor], original_sizes: Sequence[tuple[int, int]]) -> ImageBatch:
        """Normalise and pad (3, h, w) images with values in 0..255 to one batch."""
        pad_to = self.config.pad_to
        height = -(-max(image.shape[1] for image in resized) // pad_to) * pad_to
        width = -(-max(image.shape[2] for image in resized) // pad_to) * pad_to
        images = torch.zeros(len(resized), 3, height, width)
        mean = torch.tensor(self.config.mean).reshape(3, 1, 1) * 255
        std = torch.tensor(self.config.std).reshape(3, 1, 1) * 255
        for slot, image in zip(images, resized, strict=True):
            slot[:, : image.shape[1], : image.shape[2]] = (image - mean) / std
        sizes = torch.tensor([image.shape[1:] for image in resized], dtype=torch.float32)
        return ImageBatch(images, sizes, torch.tensor(original_sizes, dtype=torch.float32))


def restore(found: Boxes, batch: ImageBatch, index: int) -> Boxes:
    """Bring the boxes of one image from batch pixels back to the original image's pixels, inside its borders."""
    (height, width), (original_height, original_width) = batch.sizes[index], batch.original_sizes[index]
    scale = torch.stack([original_width / width, original_height / height]).repeat(2)
    border = torch.stack([original_width, original_height]).repeat(2)
    boxes_xyxy = torch.minimum((found.boxes_xyxy * scale).clamp(min=0), border)
    return replace(found, boxes_xyxy=boxes_xyxy)
