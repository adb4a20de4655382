"""What finds objects in images: a PyTorch detector, or an exported graph in a runtime. Results are the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from ..data.preprocess import Preprocess, PreprocessConfig, Size, pixel_batch, restore
from ..detectors import FasterRCNN
from ..device import mixed_precision
from ..errors import ConfigError
from ..graph.exported import Exported
from ..graph.runtimes import Runtime
from ..structures import Detections, ImageBatch
from .fold import folded


class Engine(Protocol):
    """Finds objects; several threads may ask at a time.

    Attributes:
        name: `torch`, `onnxruntime` or `openvino`.
        nms_iou: of class-wise suppression.
        most: detections an image at most.
    """

    name: str
    nms_iou: float
    most: int

    def detect(self, images: Sequence[Tensor], config: PreprocessConfig) -> list[Detections]:
        """(3, H, W) uint8 images of any sizes -> the objects of each, best first, in its own pixels."""


class TorchEngine:
    """A PyTorch detector, made ready for inference: batch norms folded, maps stored pixel by pixel.

    Args:
        detector: is copied.
        device: where it runs.
        precision: `float32` or `bf16`.
        compiled: compile it, once for images of any size, and record CUDA graphs on a GPU: for each padded size one,
            which `pad_to` keeps few. Operators that wait for the GPU stay outside of the recording.
    Attributes:
        detector: the copy that runs.
    """

    name = "torch"

    def __init__(self, detector: FasterRCNN, device: torch.device, precision: str, *, compiled: bool = False) -> None:
        self.detector = folded(detector).to(device).to(memory_format=torch.channels_last)
        self.device, self.precision = device, precision
        self._turn = threading.Lock()  # one pass takes all cores
        self.nms_iou, self.most = detector.roi.config.nms_iou, detector.roi.config.detections
        self._run: Callable[[Tensor, Tensor], tuple[Tensor, ...]] = self.detector
        if compiled:
            mode = "reduce-overhead" if device.type == "cuda" else None
            self._run = torch.compile(self.detector, fullgraph=True, dynamic=True, mode=mode)

    def detect(self, images: Sequence[Tensor], config: PreprocessConfig) -> list[Detections]:
        """See `Engine`.

        Raises:
            ConfigError: it cannot be compiled here.
        """
        batch = Preprocess(config)(images)
        with self._turn, torch.no_grad(), mixed_precision(self.device, self.precision):
            try:
                outputs = self._run(batch.images.to(self.device), batch.sizes.to(self.device))
            except TorchDynamoException as error:
                cause = str(error).strip().splitlines()[0]
                raise ConfigError(f"torch.compile does not work here: {cause}: leave out --compile") from error
            found = Detections(*(each.to("cpu") for each in outputs))
        return [restore(found[index].unpadded(), batch, index) for index in range(len(batch))]


class GraphEngine:
    """An exported graph.

    Args:
        runtime: with the graph.
        exported: what the graph is.
        name: of the runtime.
        streams: passes that the runtime bears at a time; more have to wait.
    """

    def __init__(self, runtime: Runtime, exported: Exported, name: str, *, streams: int = 1) -> None:
        self.name, self._runtime, self._exported = name, runtime, exported
        self._turns = threading.BoundedSemaphore(streams)
        self.nms_iou, self.most = exported.nms_iou, exported.detections

    def detect(self, images: Sequence[Tensor], config: PreprocessConfig) -> list[Detections]:
        """See `Engine`.

        Raises:
            ConfigError: another image size than the one that is inside the graph.
        """
        if not self._exported.resizes:
            return self._detect(network_input(images, self._exported, config))
        if config != self._exported.preprocess:
            raise ConfigError("this graph resizes images by itself, to one size: export it without --resize")
        return [found for image in images for found in self._detect(pixel_batch([image], [_size(image)]))]

    def _detect(self, batch: ImageBatch) -> list[Detections]:
        with self._turns:
            outputs = self._runtime(batch.images.numpy(), batch.sizes.numpy())
        *fields, counts = (torch.from_numpy(np.asarray(each)) for each in outputs)
        found = []
        for index, count in enumerate(counts.tolist()):
            boxes_xyxy, scores, labels, levels = (each[index, :count] for each in fields)
            valid = torch.ones(count, dtype=torch.bool)
            found.append(restore(Detections(boxes_xyxy, scores, labels, levels, valid), batch, index))
        return found


def network_input(images: Sequence[Tensor], exported: Exported, config: PreprocessConfig) -> ImageBatch:
    """(3, H, W) uint8 images, resized and put together as a graph expects them behind its own resizing."""
    preprocess, canvas = Preprocess(config), exported.size
    resized = [preprocess.resize(each, preprocess.resized(*_size(each), within=canvas)) for each in images]
    make = pixel_batch if exported.pixels else preprocess.batch
    batch = make(resized, [_size(each) for each in images], canvas=canvas)
    return replace(batch, images=batch.images.contiguous())


def _size(image: Tensor) -> Size:
    return image.shape[1], image.shape[2]
