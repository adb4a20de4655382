"""The one place where images become network input: resized and padded by `pixels`, normalised here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..backbones.adapters import round_up
from ..structures import ImageBatch, PixelBatch
from .pixels import IMAGENET_MEAN, IMAGENET_STD, PreprocessConfig, SizeHW, pad, resize

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Preprocess", "PreprocessConfig", "SizeHW", "normalise"]


class Preprocess:
    """Resize, pad, normalise.

    Args:
        config: see `PreprocessConfig`.
    """

    def __init__(self, config: PreprocessConfig) -> None:
        self.config = config

    def __call__(self, images: Sequence[Tensor | np.ndarray]) -> ImageBatch:
        """Images of any sizes -> one batch, each resized by itself.

        Args:
            images: (3, H, W) uint8 tensors or (H, W, 3) uint8 arrays.
        """
        arrays = [as_array(each) for each in images]
        resized = [self.resize_array(each) for each in arrays]
        return self.normalise(self.pixels_of(resized, [each.shape[:2] for each in arrays]))

    def resized_hw(self, height: int, width: int) -> SizeHW:
        """See `PreprocessConfig.resized_hw`."""
        return self.config.resized_hw(height, width)

    def resize(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 -> (3, h, w) uint8."""
        return torch.from_numpy(self.resize_array(as_array(image))).permute(2, 0, 1)

    def resize_array(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (h, w, 3) uint8."""
        return resize(image, self.resized_hw(*image.shape[:2]), antialias=self.config.antialias)

    def pixels(self, resized: Sequence[Tensor], original_hw: Sequence[SizeHW]) -> PixelBatch:
        """Pad (3, h, w) uint8 images: a quarter of an `ImageBatch`'s bytes to bring to a GPU."""
        return self.pixels_of([as_array(each) for each in resized], original_hw)

    def pixels_of(self, resized: Sequence[np.ndarray], original_hw: Sequence[SizeHW]) -> PixelBatch:
        """Pad (h, w, 3) uint8 images."""
        height, width = (round_up(max(image.shape[side] for image in resized), self.config.pad_to) for side in (0, 1))
        sizes_hw = torch.tensor([image.shape[:2] for image in resized], dtype=torch.float32)
        pixels = torch.from_numpy(pad(resized, (height, width)))
        return PixelBatch(pixels, sizes_hw, torch.tensor(original_hw, dtype=torch.float32))

    def normalise(self, batch: PixelBatch) -> ImageBatch:
        """Pixels -> the network's input on the same device, stored pixel by pixel (channels last)."""
        images = normalise(batch.pixels, batch.sizes_hw, self.config)
        return ImageBatch(images, batch.sizes_hw, batch.original_hw)


def normalise(pixels: Tensor, sizes_hw: Tensor, config: PreprocessConfig) -> Tensor:
    """Subtract the mean, divide by the deviation, and set to zero what lies beyond each image.

    Args:
        pixels: (N, H, W, 3) uint8 RGB.
        sizes_hw: (N, 2) height and width of each image inside H x W.
        config: mean and deviation, in 0..1.
    Returns:
        (N, 3, H, W) float32, a view of (N, H, W, 3).
    """
    height, width, sizes = pixels.shape[1], pixels.shape[2], sizes_hw[:, :, None]
    mean, std = (255 * torch.tensor(each, device=pixels.device) for each in (config.mean, config.std))
    images = pixels.flatten(2).float()  # whole rows, which vectorise: (N, H, 3 W)
    images = (images - mean.repeat(width)) / std.repeat(width)
    rows = torch.arange(height, device=pixels.device) < sizes[:, 0]
    columns = (torch.arange(width, device=pixels.device) < sizes[:, 1]).repeat_interleave(3, dim=1)
    images = torch.where(rows[:, :, None] & columns[:, None, :], images, 0.0)
    return images.unflatten(2, (width, 3)).permute(0, 3, 1, 2)


def as_array(image: Tensor | np.ndarray) -> np.ndarray:
    """A (3, H, W) tensor as an (H, W, 3) array of the same memory; an array as it is."""
    return image if isinstance(image, np.ndarray) else image.permute(1, 2, 0).contiguous().numpy()
