"""A detector from pixels to padded boxes: the one graph that every runtime gets."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..data.preprocess import PreprocessConfig, SizeHW, normalise
from ..detectors import Detector, PyramidNetwork
from ..errors import ExportError

LEAST_SIDE = 96
"""Export takes a side of one cell for a constant, and P6 has one cell up to 64 pixels: the canvas is larger."""

_TRACED_AT = (4, 161, 225)  # not 2 or 3 images: torch would take the batch for coordinates or colours


class DeployGraph(nn.Module):
    """Pixels in, named arrays out: normalisation and padding are inside, and every output has a fixed width.

    Args:
        detector: the network, in inference mode.
        preprocess: its mean, std and padding.
        pixels: take (N, H, W, 3) uint8 RGB and normalise it; otherwise the (N, 3, H, W) float32 of `Preprocess`,
            which is normalised already.
    Attributes:
        inputs, outputs: their names, in order. The outputs are those of the detector, and `count`.
    """

    def __init__(
        self, detector: Detector | PyramidNetwork, preprocess: PreprocessConfig, *, pixels: bool = True
    ) -> None:
        super().__init__()
        self.detector = detector
        self.preprocess = preprocess
        self.pixels = pixels
        self.inputs = detector.inputs
        self.outputs = (*(spec.name for spec in detector.outputs), "count")

    def forward(self, images: Tensor, sizes: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        """Detect.

        Args:
            images: as said of `pixels`; any N, H and W. What lies beyond an image's size is not looked at.
            sizes: (N, 2) float32, height and width of each image inside H x W.
            more: of `FastRCNN` the proposals (N, K, 4) float32 in pixels of `images`; those without area are padding.
        Returns:
            (N, D, ...) for each output of the detector, boxes in pixels of `images`, and count (N,) int64: how many of
            the D are detections, best first; the rest is 0.
        """
        if self.pixels:  # made contiguous: of other strides torch before 2.11 derives constraints on sizes
            images = normalise(images, sizes, self.preprocess).contiguous()
        canvas = self._padded(images)
        found = self.detector(canvas, sizes, *more)
        valid = found["valid"]
        shown = [_masked(found[name], valid) for name in self.outputs[:-1]]
        return *shown, valid.sum(dim=1)

    def _padded(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        return F.pad(images, (0, self._canvas_side(width) - width, 0, self._canvas_side(height) - height))

    def _canvas_side(self, side: int) -> int:
        step = self.preprocess.pad_to
        cells: Any = torch.sym_max((side + step - 1) // step, -(-LEAST_SIDE // step))
        return cells * step


def _masked(values: Tensor, valid: Tensor) -> Tensor:
    """Zero where there is no detection: (N, D, ...) and (N, D)."""
    return torch.where(valid.reshape(*valid.shape, *[1] * (values.ndim - 2)), values, 0)


def trace(graph: DeployGraph, *, size_hw: SizeHW | None = None, bf16: bool = False) -> ExportedProgram:
    """The graph as one program of any batch, and of any height and width unless `size_hw` fixes them.

    Args:
        graph: to trace.
        size_hw: height and width of the only images that it will get.
        bf16: write bfloat16 convolutions and matrix products into the program.
    Raises:
        ExportError: torch cannot follow the detector.
    """
    count, *traced_at = _TRACED_AT
    height, width = size_hw or traced_at
    sides = (None, None) if size_hw else (Dim("height", min=2, max=16384), Dim("width", min=2, max=16384))
    batch, place = Dim("batch", min=1, max=4096), 1 if graph.pixels else 2
    shape = (count, height, width, 3) if graph.pixels else (count, 3, height, width)
    images = torch.zeros(shape, dtype=torch.uint8 if graph.pixels else torch.float32)
    sizes = torch.tensor([height, width], dtype=torch.float32).repeat(count, 1)
    given: tuple[Tensor, ...] = (images, sizes)
    dynamic: tuple[Any, ...] = ({0: batch, place: sides[0], place + 1: sides[1]}, {0: batch})
    if "proposals_xyxy" in graph.inputs:
        given = (*given, torch.zeros(count, 5, 4))
        dynamic = (*dynamic, ({0: batch, 1: Dim("proposals", min=2, max=65536)},))
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False):
            return torch.export.export(graph.eval(), given, dynamic_shapes=dynamic)
    except Exception as error:  # whatever a backbone does that torch cannot follow
        raise ExportError(
            f"torch.export cannot follow this detector: {type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error
