"""Pictures as tensors; apart from decoding, which runs without torch."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError
from .images import to_rgb


def to_tensor(image: Image.Image | np.ndarray | Tensor) -> Tensor:
    """A picture as a (3, H, W) uint8 tensor.

    Args:
        image: a PIL image; an array (H, W, 3) or (H, W) uint8; or a tensor (3, H, W) uint8.
    Raises:
        DataError: another shape or type.
    """
    if isinstance(image, Image.Image):
        image = np.array(to_rgb(image))
    if isinstance(image, np.ndarray):
        if image.ndim == 2:
            image = np.repeat(image[:, :, None], 3, axis=2)
        image = torch.from_numpy(np.ascontiguousarray(image)).movedim(-1, 0) if image.ndim == 3 else image
    shape, dtype = tuple(getattr(image, "shape", ())), getattr(image, "dtype", type(image).__name__)
    if not isinstance(image, Tensor) or image.ndim != 3 or shape[0] != 3 or image.dtype != torch.uint8:
        raise DataError(
            f"expected an image as uint8 array (H, W, 3), uint8 tensor (3, H, W) or PIL image, got {shape} {dtype}"
        )
    if 0 in shape:
        raise DataError(f"expected an image of at least 1 x 1 pixels, got shape {shape}")
    return image
