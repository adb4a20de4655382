"""Networks in PyTorch as engines: the one place above the networks where torch is used."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from ..data.pixels import PreprocessConfig, restore
from ..data.preprocess import Preprocess
from ..detectors import Detector
from ..detectors.detector import as_detections
from ..device import mixed_precision
from ..errors import ConfigError
from ..outputs import Arrays, OutputSpec, Postprocess
from ..structures import Detections, ImageBatch, Inspection, Proposals
from .engines import Found, Inspected, LevelView
from .fold import folded

FindInBatch = Callable[[ImageBatch], Sequence[tuple[Proposals | None, Detections | None]]]
"""Proposals and detections of each image of a batch, in the pixels of the batch; None for what is not made."""


class TorchEngine:
    """A PyTorch detector.

    Args:
        detector: is copied and made ready for inference: batch norms folded, maps stored pixel by pixel. With
            `live=True` it is used itself, and put back into its mode after each pass: to evaluate while it learns.
        device: where it runs.
        precision: `float32` or `bf16`.
        compiled: compile it, once for images of any size, and record CUDA graphs on a GPU: for each padded size one,
            which `pad_to` keeps few. Operators that wait for the GPU stay outside of the recording.
        live: see `detector`.
    Attributes:
        detector: the one that runs.
    """

    name = "torch"

    def __init__(
        self,
        detector: Detector,
        device: torch.device,
        precision: str,
        *,
        compiled: bool = False,
        live: bool = False,
    ) -> None:
        self.detector = detector if live else folded(detector).to(device).to(memory_format=torch.channels_last)
        self.device, self.precision, self.compiled = device, precision, compiled
        self._get_ready()

    def _get_ready(self) -> None:
        self._turn = threading.Lock()  # one pass takes all cores
        self._run: Callable[[Tensor, Tensor], dict[str, Tensor]] = self.detector
        if self.compiled:
            mode = "reduce-overhead" if self.device.type == "cuda" else None
            self._run = torch.compile(self.detector, fullgraph=True, dynamic=True, mode=mode)

    @property
    def outputs(self) -> tuple[OutputSpec, ...]:
        """See `Engine`."""
        return self.detector.outputs

    @property
    def postprocess(self) -> Postprocess:
        """See `Engine`."""
        return self.detector.postprocess

    def detect(self, images: Sequence[np.ndarray], config: PreprocessConfig) -> list[Arrays]:
        """See `Engine`.

        Raises:
            ConfigError: it cannot be compiled here.
        """

        def find(batch: ImageBatch) -> list[tuple[None, Detections]]:
            try:
                found = as_detections(self._run(batch.images, batch.sizes_hw)).to("cpu")
            except TorchDynamoException as error:
                cause = str(error).strip().splitlines()[0]
                raise ConfigError(f"torch.compile does not work here: {cause}: load without compiled=True") from error
            return [(None, found[index].unpadded()) for index in range(len(batch))]

        return [found for _, found in self._restored(find, images, config) if found is not None]

    def detect_and_propose(
        self, images: Sequence[np.ndarray], config: PreprocessConfig, *, proposals: int
    ) -> list[Found]:
        """See `Engine`."""

        def find(batch: ImageBatch) -> Sequence[tuple[Proposals | None, Detections]]:
            return self.detector.detect_and_propose(batch, proposals=proposals)

        return self._restored(find, images, config)  # type: ignore[return-value]

    def inspect(self, images: Sequence[np.ndarray], config: PreprocessConfig) -> list[Inspected]:
        """See `Engine`."""
        batch = self._batch(images, config)
        with self._pass():
            inspection = self.detector.inspect(batch)
        return [_inspected(inspection, batch, index) for index in range(len(batch))]

    def time_steps(self, images: Sequence[np.ndarray], config: PreprocessConfig) -> dict[str, float]:
        """See `Engine`."""
        batch, passed = self._batch(images, config), {}
        with self._pass():
            began = time.perf_counter()
            for name in self.detector.steps(batch.images, batch.sizes_hw):
                if self.device.type == "cuda":
                    torch.cuda.synchronize()
                passed[name], began = time.perf_counter() - began, time.perf_counter()
        return passed

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_turn", "_run")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._get_ready()

    def _batch(self, images: Sequence[np.ndarray], config: PreprocessConfig) -> ImageBatch:
        return Preprocess(config)(images).to(self.device)

    def _restored(
        self, find: FindInBatch, images: Sequence[np.ndarray], config: PreprocessConfig
    ) -> list[tuple[Arrays | None, Arrays | None]]:
        batch = self._batch(images, config)
        with self._pass():
            return restored(find(batch), batch)

    @contextlib.contextmanager
    def _pass(self) -> Iterator[None]:
        """One pass at a time, in inference mode and in the engine's precision."""
        with self._turn, torch.no_grad(), mixed_precision(self.device, self.precision):
            was_training = self.detector.training
            self.detector.eval()
            try:
                yield
            finally:
                self.detector.train(was_training)


def find_in_images(
    find: FindInBatch, config: PreprocessConfig, device: torch.device, precision: str
) -> Callable[[Sequence[np.ndarray]], list[tuple[Arrays | None, Arrays | None]]]:
    """What finds things in batches, for images: (H, W, 3) uint8 in, named arrays in each image's own pixels out."""

    def run(images: Sequence[np.ndarray]) -> list[tuple[Arrays | None, Arrays | None]]:
        batch = Preprocess(config)(images).to(device)
        with mixed_precision(device, precision):
            return restored(find(batch), batch)

    return run


def restored(
    found: Sequence[tuple[Proposals | None, Detections | None]], batch: ImageBatch
) -> list[tuple[Arrays | None, Arrays | None]]:
    """Proposals and detections of a batch as named arrays, each image's in its own pixels."""
    sizes_hw, original_hw = batch.sizes_hw.tolist(), batch.original_hw.tolist()
    made = []
    for index, (proposals, detections) in enumerate(found):
        sides = sizes_hw[index], original_hw[index]
        proposed = None
        if proposals is not None:
            boxes_xyxy, scores = proposals.boxes_xyxy.float().cpu().numpy(), proposals.scores.float().cpu().numpy()
            proposed = restore({"boxes_xyxy": boxes_xyxy, "scores": scores}, *sides)
        made.append((proposed, None if detections is None else restore(_arrays(detections), *sides)))
    return made


def _arrays(found: Detections) -> Arrays:
    return {name: values.detach().cpu().numpy() for name, values in found.named().items()}


def _inspected(inspection: Inspection, batch: ImageBatch, index: int) -> Inspected:
    height, width = (int(side) for side in batch.sizes_hw[index].tolist())
    strides = {level.name: level.stride for level in inspection.levels}

    def own(cells: Tensor, stride: int) -> np.ndarray:
        """Cells (..., h, w) that hold a pixel of the image."""
        return cells[..., : -(-height // stride), : -(-width // stride)].to("cpu", torch.float32).numpy().copy()

    features = {name: own(feature[index], strides[name]) for name, feature in inspection.features.items()}
    levels = tuple(
        LevelView(
            level.number,
            level.stride,
            level.anchor_sides,
            level.cell_anchors_xyxy.cpu().numpy(),
            level.anchor_offset,
            own(level.objectness[index], level.stride),
        )
        for level in inspection.levels
    )
    found = restore(_arrays(inspection.detections[index]), (height, width), batch.original_hw[index].tolist())
    return Inspected(found, features, levels)
