"""The values that travel between rooms. Frozen; shapes are written beside each field.

N images, M padded ground-truth boxes, K padded proposals or detections, H x W pixels.
Padded entries have `valid == False` and may hold anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from .errors import ConfigError
from .outputs import BASE_OUTPUTS

Features = Mapping[str, Tensor]
"""Level name -> (N, channels, H/stride, W/stride), finest level first."""

Batched = TypeVar("Batched", bound="_Batched")


class _Batched:
    """Moves and indexes every tensor field at once."""

    def to(self: Batched, device: torch.device | str) -> Batched:
        """The same value on another device; what is pinned is copied while others compute."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=tensor.is_pinned()))

    def pin_memory(self: Batched) -> Batched:
        """The same value in memory that a GPU copies from by itself; torch's loaders call this."""
        return self._map(lambda tensor: tensor.pin_memory())

    def __getitem__(self: Batched, index: int | slice | Tensor) -> Batched:
        """Index the first dimension of every field: an image of a batch, or boxes of an image."""
        return self._map(lambda tensor: tensor[index])

    def _map(self: Batched, change: Callable[[Tensor], Tensor]) -> Batched:
        values = {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]
        changed = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **changed)  # type: ignore[type-var]


@dataclass(frozen=True)
class LevelSpec:
    """What one level of a backbone or pyramid promises.

    Attributes:
        name: `c2`..`c5` for bottom-up maps, `p2`..`p6` for pyramid maps.
        stride: input pixels between two neighbouring cells; declared here and derived nowhere else.
        channels: channels of the map.
        serves: strides of the levels whose object sizes this map answers for, finest first; by default its own. A
            map that stands for a whole pyramid, as in Table 1 (b) and (f), serves several: it gets the anchors of all.
    """

    name: str
    stride: int
    channels: int
    serves: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.serves:
            object.__setattr__(self, "serves", (self.stride,))
        if self.stride < 1 or self.channels < 1 or min(self.serves) < 1:
            raise ConfigError(
                f"level {self.name} has stride {self.stride}, {self.channels} channels and serves {self.serves}: "
                "all must be 1 or more"
            )

    @property
    def number(self) -> int:
        """The k of P_k: 4 of `p4`; of a name without a number, log2 of the stride, rounded."""
        return int(self.name[1:]) if self.name[1:].isdecimal() else round(math.log2(self.stride))


@dataclass(frozen=True)
class PixelBatch(_Batched):
    """Images that are not normalised yet, and how to get back to the originals.

    Attributes:
        pixels: (N, H, W, 3) uint8 RGB, padded with zeros at the right and bottom.
        sizes_hw: (N, 2) float, height and width of the real image inside the padding.
        original_hw: (N, 2) float, height and width before resizing.
    """

    pixels: Tensor
    sizes_hw: Tensor
    original_hw: Tensor

    def __len__(self) -> int:
        return self.pixels.shape[0]


@dataclass(frozen=True)
class ImageBatch(_Batched):
    """Images ready for the network, and how to get back to the originals.

    Attributes:
        images: (N, 3, H, W) float, normalised, padded with zeros at the right and bottom.
        sizes_hw: (N, 2) float, height and width of the real image inside the padding.
        original_hw: (N, 2) float, height and width before resizing.
    """

    images: Tensor
    sizes_hw: Tensor
    original_hw: Tensor

    def __len__(self) -> int:
        return self.images.shape[0]


@dataclass(frozen=True)
class Targets(_Batched):
    """Ground truth of a batch, in the pixels of its `ImageBatch` or `PixelBatch`.

    Attributes:
        boxes_xyxy: (N, M, 4) float.
        labels: (N, M) int64 in 0..K-1.
        valid: (N, M) bool: a real object.
        crowd: (N, M) bool: a region where anchors and proposals are neither right nor wrong.
        seeds: (N,) int64 of each image's samples, so that they do not depend on the rest of the batch; drawn from
            the global random state when there are none.
    """

    boxes_xyxy: Tensor
    labels: Tensor
    valid: Tensor
    crowd: Tensor
    seeds: Tensor | None = None


@dataclass(frozen=True)
class Proposals(_Batched):
    """Class-agnostic boxes from the RPN, best first.

    Attributes:
        boxes_xyxy: (N, K, 4) float, clipped to the image.
        scores: (N, K) float, objectness logits.
        valid: (N, K) bool.
    """

    boxes_xyxy: Tensor
    scores: Tensor
    valid: Tensor


@dataclass(frozen=True)
class LevelResponse:
    """How one level of a pyramid answered to a batch. Boxes are pixels of the batch.

    Attributes:
        name: of the level.
        number: the k of P_k.
        stride: pixels from cell to cell.
        anchor_sides: sides of its square anchors.
        cell_anchors_xyxy: (A, 4) the anchors of a cell, around the origin.
        anchor_offset: where in its cell an anchor is centred, in strides.
        objectness: (N, h, w) float in 0..1 of the best anchor of each cell, padding cells included.
    """

    name: str
    number: int
    stride: int
    anchor_sides: tuple[float, ...]
    cell_anchors_xyxy: Tensor
    anchor_offset: float
    objectness: Tensor


@dataclass(frozen=True)
class ClassLayer:
    """A layer whose rows belong to classes, so that weights of one class can be kept when the classes change.

    Attributes:
        name: of the module, with `weight` and `bias`, in the detector.
        rows: consecutive rows for each class, in the order of the labels.
        background: one more row for the background stands behind them.
    """

    name: str
    rows: int = 1
    background: bool = False


@dataclass(frozen=True)
class Detections(_Batched):
    """Named values of detections: batched and padded (N, K, ...) inside the network, of one image (K, ...) outside.

    Attributes:
        boxes_xyxy: (..., K, 4) float pixels.
        scores: (..., K) float in 0..1, best first.
        labels: (..., K) int64 in 0..classes-1.
        valid: (..., K) bool.
        more: name -> (..., K, ...) of whatever else the detector gives; `found.levels` reads `found.more["levels"]`.
    """

    boxes_xyxy: Tensor
    scores: Tensor
    labels: Tensor
    valid: Tensor
    more: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.boxes_xyxy.shape[0]

    def __getattr__(self, name: str) -> Tensor:
        more = self.__dict__.get("more", {})
        if name not in more:
            known = ", ".join((*(spec.name for spec in BASE_OUTPUTS), *more))  # not of `self`, which may be unfinished
            raise AttributeError(f"these detections have no {name!r}: they have {known}")
        return more[name]

    def named(self) -> dict[str, Tensor]:
        """Name -> values of everything but `valid`, in the order of a detector's `outputs`."""
        return {"boxes_xyxy": self.boxes_xyxy, "scores": self.scores, "labels": self.labels, **self.more}

    def unpadded(self) -> Detections:
        """The valid detections of one image: every field indexed by its own `valid`."""
        return self[self.valid]

    def _map(self, change: Callable[[Tensor], Tensor]) -> Detections:
        values = {name: change(value) for name, value in self.named().items()}
        boxes_xyxy, scores, labels = (values.pop(spec.name) for spec in BASE_OUTPUTS)
        return Detections(boxes_xyxy, scores, labels, change(self.valid), values)


@dataclass(frozen=True)
class Inspection:
    """What a pass over a batch went through, beside what it found.

    Attributes:
        detections: of each image, as `Detector.detect` gives them.
        features: the pyramid.
        levels: the response of each level, finest first.
    """

    detections: list[Detections]
    features: Features
    levels: tuple[LevelResponse, ...]
