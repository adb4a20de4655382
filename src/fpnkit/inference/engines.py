"""What finds objects in images: a network in PyTorch, or an exported graph in a runtime. Results are the same."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..data.pixels import PreprocessConfig, SizeHW, pad, resize, restore
from ..errors import ConfigError
from ..graph.exported import Exported
from ..graph.runtimes import Outputs, Runtime
from ..outputs import Arrays, OutputSpec, Postprocess

Found = tuple[Arrays | None, Arrays]
"""Proposals, where an engine gives any, and detections of one image, in its own pixels."""


@dataclass(frozen=True)
class LevelView:
    """What one level made of an image. Boxes are pixels of the image as the network saw it.

    Attributes:
        number: the k of P_k.
        stride: pixels from cell to cell.
        anchor_sides: sides of its square anchors.
        cell_anchors_xyxy: (A, 4) the anchors of a cell, around the origin.
        anchor_offset: where in its cell an anchor is centred, in strides.
        objectness: (h, w) in 0..1: of the best anchor of each cell; without padding cells.
    """

    number: int
    stride: int
    anchor_sides: tuple[float, ...]
    cell_anchors_xyxy: np.ndarray
    anchor_offset: float
    objectness: np.ndarray

    def peak(self) -> tuple[np.ndarray, np.ndarray]:
        """Where objectness is highest: the cell (4,) and its anchors (A, 4), xyxy pixels."""
        row, column = divmod(int(self.objectness.argmax()), self.objectness.shape[1])
        corner = np.array([column, row, column, row], dtype=np.float32) * self.stride
        cell = corner + np.array([0, 0, self.stride, self.stride], dtype=np.float32)
        return cell, corner + self.anchor_offset * self.stride + self.cell_anchors_xyxy


@dataclass(frozen=True)
class Inspected:
    """What a pass over an image went through.

    Attributes:
        found: detections in the image's own pixels.
        features: level name -> (C, h, w) float32, without padding cells.
        levels: finest first.
    """

    found: Arrays
    features: dict[str, np.ndarray]
    levels: tuple[LevelView, ...]


class Engine(Protocol):
    """Finds objects; several threads may ask at a time.

    Attributes:
        name: `torch`, `onnxruntime` or `openvino`.
        outputs: what it says of each detection.
        postprocess: least score, NMS threshold and number of detections.
    """

    name: str

    @property
    def outputs(self) -> tuple[OutputSpec, ...]:
        """See above."""

    @property
    def postprocess(self) -> Postprocess:
        """See above."""

    def detect(self, images: Sequence[np.ndarray], config: PreprocessConfig) -> list[Arrays]:
        """(H, W, 3) uint8 RGB images of any sizes -> the objects of each, best first, in its own pixels."""

    def detect_and_propose(
        self, images: Sequence[np.ndarray], config: PreprocessConfig, *, proposals: int
    ) -> list[Found]:
        """As `detect`, with the best class-agnostic proposals of the same pass where there are any."""

    def inspect(self, images: Sequence[np.ndarray], config: PreprocessConfig) -> list[Inspected]:
        """As `detect`, with features and level responses of the same pass.

        Raises:
            ConfigError: the engine does not see inside of its network.
        """

    def time_steps(self, images: Sequence[np.ndarray], config: PreprocessConfig) -> dict[str, float]:
        """Seconds of each part of one pass, by name; empty where the engine does not see inside of its network."""


class GraphEngine:
    """An exported graph.

    Args:
        runtime: with the graph.
        exported: what the graph is.
        name: of the runtime.
        streams: passes that the runtime takes at a time; more have to wait.
    """

    def __init__(self, runtime: Runtime, exported: Exported, name: str, *, streams: int = 1) -> None:
        self.name, self._runtime, self._exported, self._streams = name, runtime, exported, streams
        self._turns = threading.BoundedSemaphore(streams)
        self.outputs, self.postprocess = exported.outputs, exported.postprocess

    def detect(self, images: Sequence[np.ndarray], config: PreprocessConfig) -> list[Arrays]:
        """See `Engine`.

        Raises:
            ConfigError: another image size than the one that is inside the graph.
        """
        if not self._exported.resizes:
            given, sizes_hw = network_input(images, self._exported, config)
            return self._found(self._run(given, sizes_hw), sizes_hw, images)
        if config != self._exported.preprocess:
            raise ConfigError("this graph resizes images by itself, to one size: export it without resizing")
        found = []
        for image in images:
            size_hw = np.array([image.shape[:2]], dtype=np.float32)
            found += self._found(self._run(pad([image]), size_hw), size_hw, [image])
        return found

    def detect_and_propose(
        self, images: Sequence[np.ndarray], config: PreprocessConfig, *, proposals: int
    ) -> list[Found]:
        """See `Engine`: a graph gives no proposals."""
        return [(None, found) for found in self.detect(images, config)]

    def inspect(self, images: Sequence[np.ndarray], config: PreprocessConfig) -> list[Inspected]:
        """See `Engine`."""
        raise ConfigError(f"{self.name} runs an exported graph, which does not show its features: load the weights")

    def time_steps(self, images: Sequence[np.ndarray], config: PreprocessConfig) -> dict[str, float]:
        """See `Engine`."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_turns"}  # locks cannot be copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _turns=threading.BoundedSemaphore(state["_streams"]))

    def _run(self, images: np.ndarray, sizes_hw: np.ndarray) -> Outputs:
        with self._turns:
            return self._runtime(images, sizes_hw)

    def _found(self, outputs: Outputs, sizes_hw: np.ndarray, images: Sequence[np.ndarray]) -> list[Arrays]:
        *values, counts = outputs
        found = []
        for index, image in enumerate(images):
            count = int(counts[index])
            arrays = {spec.name: each[index, :count] for spec, each in zip(self.outputs, values, strict=True)}
            found.append(restore(arrays, sizes_hw[index], image.shape[:2]))
        return found


def network_input(
    images: Sequence[np.ndarray], exported: Exported, config: PreprocessConfig
) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 images as a graph expects them behind its own resizing: its `images` and `sizes`."""
    resized = [_resized(each, config, exported.size_hw) for each in images]
    sizes_hw = np.array([each.shape[:2] for each in resized], dtype=np.float32)
    if exported.pixels:
        return pad(resized, exported.size_hw), sizes_hw
    height, width = exported.size_hw or (
        -(-max(each.shape[side] for each in resized) // config.pad_to) * config.pad_to for side in (0, 1)
    )
    normalised = np.zeros((len(resized), height, width, 3), dtype=np.float32)
    mean, std = (255 * np.array(each, dtype=np.float32) for each in (config.mean, config.std))
    for slot, each in zip(normalised, resized, strict=True):
        slot[: each.shape[0], : each.shape[1]] = (each - mean) / std
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2)), sizes_hw


def _resized(image: np.ndarray, config: PreprocessConfig, within: SizeHW | None) -> np.ndarray:
    height, width = image.shape[:2]
    return resize(image, config.resized_hw(height, width, within=within), antialias=config.antialias)
