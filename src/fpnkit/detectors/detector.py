"""The contract of every detector: what training, evaluation, export and prediction ask of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..outputs import BASE_OUTPUTS, OutputSpec, Postprocess
from ..structures import ClassLayer, Detections, ImageBatch, Inspection, LevelSpec, Proposals, Targets


class Detector(nn.Module, ABC):
    """Finds objects in images. Derive from it, and everything above `detectors` works with your own.

    Abstract are `num_classes`, `forward` and `losses`. Parameters named `backbone.*` have the recipe's learning rate of
    backbones, all others that of heads.

    Args:
        postprocess: least score, NMS threshold and number of detections.
    Attributes:
        postprocess: as given; another one may be assigned at any time.
        inputs: names of what `forward` takes.
        outputs: what `forward` says of each detection, in this order; begins with boxes, scores and labels.
    """

    inputs: tuple[str, ...] = ("images", "sizes")
    outputs: tuple[OutputSpec, ...] = BASE_OUTPUTS

    def __init__(self, *, postprocess: Postprocess | None = None) -> None:
        super().__init__()
        self.postprocess = postprocess or Postprocess()

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """Classes, without background."""

    @abstractmethod
    def forward(self, images: Tensor, sizes_hw: Tensor) -> dict[str, Tensor]:
        """The whole detector as one graph of fixed output size, for compilers and exporters.

        Args:
            images: (N, 3, H, W) normalised and padded; any N, H, W.
            sizes_hw: (N, 2) float height and width inside the padding.
        Returns:
            (N, D, ...) under the name of each of `outputs`, best first, in the pixels of `images`, and `valid` (N, D)
            bool: which of the D are detections.
        """

    @abstractmethod
    def losses(self, batch: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        """Scalars by name, whose sum is minimised; each the mean over images of what an image alone would give."""

    @torch.inference_mode()
    def detect(self, batch: ImageBatch) -> list[Detections]:
        """The objects of each image, best first, in the pixels of the batch.

        Raises:
            ConfigError: the detector is in training mode.
        """
        require_inference_mode(self)
        found = as_detections(self(batch.images, batch.sizes_hw))
        return [found[index].unpadded() for index in range(len(batch))]

    def detect_and_propose(
        self, batch: ImageBatch, *, proposals: int = 1000
    ) -> list[tuple[Proposals | None, Detections]]:
        """Detections, and the class-agnostic proposals that they were made of, from one pass.

        Args:
            batch: images.
            proposals: how many an image.
        Returns:
            For each image its proposals, None of a detector that makes none, and its detections.
        """
        return [(None, found) for found in self.detect(batch)]

    def inspect(self, batch: ImageBatch) -> Inspection:
        """Detections with the features and the level responses of the same pass.

        Raises:
            ConfigError: the detector has no pyramid to show, or is in training mode.
        """
        raise ConfigError(f"{type(self).__name__} has no pyramid levels that could be shown")

    def assign_levels(self, boxes_xyxy: Tensor) -> tuple[tuple[LevelSpec, ...], Tensor]:
        """Which level reads an object of each box, where that depends on its size.

        Args:
            boxes_xyxy: (K, 4) pixels of the network's input.
        Returns:
            The levels that objects are read from, finest first, and the index (K,) int64 of each box's among them.
        Raises:
            ConfigError: the detector does not go by size.
        """
        raise ConfigError(f"{type(self).__name__} does not assign objects to levels by their size")

    def steps(self, images: Tensor, sizes_hw: Tensor) -> Iterator[str]:
        """One pass, part by part, to measure it: the name of each part comes when it is done."""
        self(images, sizes_hw)
        yield "network"

    def class_layers(self) -> tuple[ClassLayer, ...]:
        """The layers that fine-tuning on other classes reorders by class; none by default."""
        return ()


def require_inference_mode(network: nn.Module) -> None:
    """
    Raises:
        ConfigError: the network is in training mode.
    """
    if network.training:
        raise ConfigError("expected the detector in inference mode: call detector.eval() first")


def as_detections(found: Mapping[str, Tensor]) -> Detections:
    """What `Detector.forward` returns as `Detections`."""
    named = dict(found)
    boxes_xyxy, scores, labels = (named.pop(spec.name) for spec in BASE_OUTPUTS)
    return Detections(boxes_xyxy, scores, labels, named.pop("valid"), named)


def as_named(found: Detections) -> dict[str, Tensor]:
    """`Detections` as `Detector.forward` returns them."""
    return {**found.named(), "valid": found.valid}
