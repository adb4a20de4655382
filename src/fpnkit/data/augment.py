"""What training does to its images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..errors import ConfigError
from .annotated import AnnotatedImages, AnnotatedObject, Record
from .outlines import Polygons
from .paths import MAX_PIXELS
from .read import read_record


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What training does to its images.

    Attributes:
        flip: chance of a horizontal flip.
        scale: smallest and largest factor on the size at which the image fits into the crop.
        crop: side in pixels of the square that each image is cropped or padded to.
        colour: largest change of brightness, contrast and saturation, as a share; a quarter of it is that of the hue.
        min_visible: objects cropped or covered to less than this share of their area are dropped.
        paste: chance that objects of another image, whose masks are known, are pasted into one (arXiv:2012.07177).
    """

    flip: float = 0.5
    scale: tuple[float, float] = (0.8, 1.6)
    crop: int = 512
    colour: float = 0.0
    min_visible: float = 0.25
    paste: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high < math.inf:
            raise ConfigError(f"scale must be two factors above 0, the smaller one first, got {low} {high}")
        if self.crop < 1:
            raise ConfigError(f"crop must be 1 or more, got {self.crop}")
        for name in ("flip", "min_visible", "colour", "paste"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie in 0..1, got {getattr(self, name)}")


def record_tensor(record: Record, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """A record's image, (3, H, W) uint8, see `read_record`."""
    return torch.from_numpy(read_record(record, max_pixels=max_pixels)).movedim(-1, 0)


class Augment:
    """Flip, scale jitter and crop by torchvision.transforms.v2, and colours where they are asked for.

    Large-scale jitter (arXiv:2012.07177) is `scale=(0.1, 2.0)`.
    """

    def __init__(self, config: AugmentConfig, *, fill: Sequence[int]) -> None:
        size = (config.crop, config.crop)
        self.min_visible = config.min_visible
        self.resize = v2.Compose(
            [v2.RandomHorizontalFlip(config.flip), _ScaleJitter(size, config.scale, antialias=True)]
        )
        strength = (config.colour,) * 3
        self.recolour = v2.ColorJitter(*strength, config.colour / 4) if config.colour else v2.Identity()
        filling: dict[Any, Any] = {tv_tensors.Image: list(fill), "others": 0}
        self.crop = v2.RandomCrop(size, pad_if_needed=True, fill=filling)

    def __call__(self, image: Tensor, record: Record) -> tuple[Tensor, Tensor, Tensor]:
        """(3, H, W) uint8 and its record -> image, boxes (M, 4), index (M,) of the objects that are left."""
        changed, boxes, left, _ = self.with_masks(image, record, torch.zeros(0, *image.shape[1:], dtype=torch.uint8))
        return changed, boxes, left

    def with_masks(self, image: Tensor, record: Record, masks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As a call, with masks (K, H, W) uint8 that move with the image."""
        boxes = torch.tensor(record.boxes_xyxy, dtype=torch.float32).reshape(-1, 4)
        wrapped = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=image.shape[1:])  # type: ignore[call-arg]
        image, before, masks = self.resize(tv_tensors.Image(image), wrapped, tv_tensors.Mask(masks))
        areas = _areas(before)
        image, after, masks = self.crop(self.recolour(image), before, masks)
        after = v2.functional.clamp_bounding_boxes(after)
        left = torch.where((_areas(after) >= self.min_visible * areas) & (_areas(after) >= 1))[0]
        return image.as_subclass(Tensor), after.as_subclass(Tensor)[left], left, masks.as_subclass(Tensor)


class _ScaleJitter(v2.ScaleJitter):  # type: ignore[misc]
    """Leaves a pixel of the short side of extreme shapes."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = super().make_params(flat_inputs)["size"]
        return {"size": (max(1, height), max(1, width))}


class CopyPaste:
    """Objects of one image in another: simple copy-paste, arXiv:2012.07177, for objects whose outline is annotated.

    Args:
        dataset: where objects come from: those with polygons that are no crowds.
        augment: what happens to their image before.
        chance: of an image to get some.
        max_pixels: see `read_image`.
    """

    def __init__(
        self, dataset: AnnotatedImages, augment: Augment, chance: float, *, max_pixels: int = MAX_PIXELS
    ) -> None:
        self.augment = augment
        self.chance = chance
        self.max_pixels = max_pixels
        outlined = (
            replace(record, objects=tuple(filter(_can_be_pasted, record.objects))) for record in dataset.records
        )
        self.donors = [record for record in outlined if record.objects]

    def __call__(
        self, image: Tensor, boxes: Tensor, labels: Tensor, crowd: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """An augmented image with its objects -> the same, perhaps with others on top.

        Objects that are covered but for less than `AugmentConfig.min_visible` of their box are dropped.
        """
        if not self.donors or torch.rand(()) >= self.chance:
            return image, boxes, labels, crowd
        donor = self.donors[int(torch.randint(len(self.donors), ()))]
        chosen = tuple(each for each in donor.objects if torch.rand(()) < 0.5) or donor.objects[:1]
        donor = replace(donor, objects=chosen)
        source = record_tensor(donor, max_pixels=self.max_pixels)
        masks = torch.stack([_mask(each, donor) for each in chosen])
        source, new_boxes, left, masks = self.augment.with_masks(source, donor, masks)
        covered = masks[left].bool().any(dim=0)
        kept = crowd | (_covered(boxes, covered) <= 1 - self.augment.min_visible)
        new_labels = torch.tensor(donor.labels, dtype=torch.int64)[left]
        return (
            torch.where(covered, source, image),
            torch.cat([boxes[kept], new_boxes]),
            torch.cat([labels[kept], new_labels]),
            torch.cat([crowd[kept], torch.zeros(len(left), dtype=torch.bool)]),
        )


def _can_be_pasted(each: AnnotatedObject) -> bool:
    return isinstance(each.outline, Polygons) and not each.crowd


def _mask(each: AnnotatedObject, record: Record) -> Tensor:
    """(H, W) uint8, 1 inside the object's polygons."""
    assert isinstance(each.outline, Polygons)
    canvas = Image.new("L", (record.width, record.height))
    for polygon in each.outline.polygons:
        ImageDraw.Draw(canvas).polygon(polygon, fill=1, outline=1)
    return torch.from_numpy(np.array(canvas))


def _covered(boxes_xyxy: Tensor, covered: Tensor) -> Tensor:
    """The share of each box (M, 4) that is covered, by an (H, W) mask."""
    sums = torch.nn.functional.pad(covered.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    left, top, right, bottom = boxes_xyxy.round().long().unbind(dim=1)
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return (inside / ((right - left) * (bottom - top)).clamp(min=1)).float()


def _areas(boxes_xyxy: Tensor) -> Tensor:
    sides = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).clamp(min=0).as_subclass(Tensor)
    return sides[:, 0] * sides[:, 1]
