"""The one place where images become network input, and boxes come back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..backbones.adapters import round_up
from ..errors import ConfigError
from ..structures import Detections, ImageBatch, Proposals

Boxes = TypeVar("Boxes", Detections, Proposals)

Size = tuple[int, int]
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

    def resized(self, height: int, width: int, *, within: Size | None = None) -> Size:
        """Height and width after resizing: the short side as configured unless the long side is capped, or a limit."""
        # In whole numbers: as floats 97 * (800 / 97) falls short of 800 and loses a pixel.
        ratios = [(self.config.short_side, min(height, width)), (self.config.long_side, max(height, width))]
        if within:
            ratios += zip(within, (height, width), strict=True)
        wanted, given = min(ratios, key=lambda ratio: Fraction(*ratio))
        return max(1, height * wanted // given), max(1, width * wanted // given)

    def resize(self, image: Tensor, size: Size | None = None) -> Tensor:
        """(3, H, W) uint8 -> (3, h, w) uint8: whole values, so that every runtime gets the very same pixels."""
        size = size or self.resized(image.shape[1], image.shape[2])
        resized = F.interpolate(image[None].float(), size, mode="bilinear", antialias=self.config.antialias)
        return resized[0].round().clamp(0, 255).to(torch.uint8)

    def batch(
        self, resized: Sequence[Tensor], original_sizes: Sequence[Size], *, canvas: Size | None = None
    ) -> ImageBatch:
        """Pad (3, h, w) uint8 images to one batch, `canvas` large where it is given, and normalise it."""
        return self.normalise(self.pixels(resized, original_sizes, canvas=canvas))

    def pixels(
        self, resized: Sequence[Tensor], original_sizes: Sequence[Size], *, canvas: Size | None = None
    ) -> ImageBatch:
        """What `normalise` takes: a quarter of its result's bytes to bring to a GPU."""
        height, width = _largest(resized)
        padded = round_up(height, self.config.pad_to), round_up(width, self.config.pad_to)
        return pixel_batch(resized, original_sizes, canvas=canvas or padded)

    def normalise(self, batch: ImageBatch) -> ImageBatch:
        """Pixels (N, H, W, 3) -> the network's input on the same device, stored pixel by pixel (channels last)."""
        pixels, sizes = batch.images, batch.sizes[:, :, None]
        height, width = pixels.shape[1:3]
        rows, columns = torch.arange(height, device=pixels.device), torch.arange(width, device=pixels.device)
        images = pixels.flatten(2).float()  # whole rows, which vectorise: (N, H, 3 W)
        images -= 255 * torch.tensor(self.config.mean, device=pixels.device).repeat(width)
        images /= 255 * torch.tensor(self.config.std, device=pixels.device).repeat(width)
        images *= (rows < sizes[:, 0])[:, :, None]
        images *= (columns < sizes[:, 1]).repeat_interleave(3, dim=1)[:, None, :]
        return replace(batch, images=images.reshape(pixels.shape).permute(0, 3, 1, 2))


def pixel_batch(resized: Sequence[Tensor], original_sizes: Sequence[Size], *, canvas: Size | None = None) -> ImageBatch:
    """(3, h, w) uint8 images as pixels that are normalised later: (N, H, W, 3) uint8.

    Args:
        resized: images.
        original_sizes: height and width of each before it was resized.
        canvas: H and W; by default as large as the largest needs, and 2 or more, for 1 is a constant to exporters.
    """
    height, width = canvas or (max(2, side) for side in _largest(resized))
    images = torch.zeros(len(resized), height, width, 3, dtype=torch.uint8)
    for slot, image in zip(images, resized, strict=True):
        slot[: image.shape[1], : image.shape[2]] = image.permute(1, 2, 0)
    sizes = torch.tensor([image.shape[1:] for image in resized], dtype=torch.float32)
    return ImageBatch(images, sizes, torch.tensor(original_sizes, dtype=torch.float32))


def _largest(images: Sequence[Tensor]) -> Size:
    return max(image.shape[1] for image in images), max(image.shape[2] for image in images)


def restore(found: Boxes, batch: ImageBatch, index: int) -> Boxes:
    """Bring the boxes of one image from batch pixels back to the original image's pixels, inside its borders."""
    (height, width), (original_height, original_width) = batch.sizes[index], batch.original_sizes[index]
    scale = torch.stack([original_width / width, original_height / height]).repeat(2)
    border = torch.stack([original_width, original_height]).repeat(2)
    boxes_xyxy = torch.minimum((found.boxes_xyxy * scale).clamp(min=0), border)
    return replace(found, boxes_xyxy=boxes_xyxy)
