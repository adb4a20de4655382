"""Pictures as tensors; apart from decoding, which runs without torch."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError
from .annotated import Record
from .images import read_image, to_rgb
from .read import wrong_size


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


def record_tensor(record: Record) -> Tensor:
    """A record's image, (3, H, W) uint8.

    Raises:
        DataError: it cannot be read, or is of another size than annotated.
    """
    image = to_tensor(read_image(record.path))
    if reason := wrong_size(record, (image.shape[2], image.shape[1])):
        raise DataError(f"{record.path}: {reason}")
    return image
