"""From a detector to a folder with its graph."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ..data.preprocess import PreprocessConfig
from ..detectors import Detector, PyramidNetwork
from ..errors import ConfigError
from .deploy import DeployGraph, trace
from .exported import Exported, write_card
from .onnx import to_onnx
from .quantize import Sample, quantize
from .resize import with_resize
from .runtimes import require

PRECISIONS = {"onnx": ("float32", "int8"), "openvino": ("float32", "bf16", "int8"), "torch": ("float32", "bf16")}
"""Format -> the precisions that its runtime computes in."""


def require_possible(exported: Exported) -> None:
    """
    Raises:
        ConfigError: a precision, or resizing, that this format cannot do; or a package is missing.
    """
    if exported.precision not in PRECISIONS[exported.format]:
        able = [name for name, precisions in PRECISIONS.items() if exported.precision in precisions]
        raise ConfigError(f"{exported.precision} is for the formats {', '.join(able)}, not for {exported.format}")
    if exported.resizes and (exported.format == "torch" or not exported.pixels or exported.size_hw):
        raise ConfigError("resizes=True is for the formats onnx and openvino, and for uint8 images of any size")
    if exported.format != "torch":
        require("onnx", "onnxscript")
    if exported.format == "openvino":
        require("openvino")
    if exported.precision == "int8":
        require("nncf")


def write_graph(folder: Path, detector: Detector, exported: Exported, samples: Iterable[Sample] = ()) -> None:
    """Write the graph of a detector and its description into a folder that is there and empty.

    Args:
        folder: gets the files that `read_card` and the runtimes expect.
        detector: in inference mode, on the CPU.
        exported: what to make.
        samples: batches to calibrate int8 with.
    Raises:
        ConfigError: see `require_possible`.
        ExportError: the detector cannot be followed or written.
    """
    require_possible(exported)
    graph = DeployGraph(detector, exported.preprocess, pixels=exported.pixels)
    path = folder / exported.graph
    if exported.format == "torch":
        torch.export.save(trace(graph, size_hw=exported.size_hw, bf16=exported.precision == "bf16"), path)
    else:
        model = _finished(to_onnx(trace(graph, size_hw=exported.size_hw), graph), exported, samples)
        if exported.format == "onnx":
            require("onnx").save(model, path)
        else:
            _save_openvino(model, path, smooth=exported.resizes and exported.preprocess.antialias)
    write_card(folder, exported)


def write_onnx(path: str | Path, detector: Detector | PyramidNetwork, preprocess: PreprocessConfig) -> None:
    """Write any detector, put together by hand for one, as an ONNX graph of any batch, height and width.

    Args:
        path: the .onnx file.
        detector: any, or an `RPN` or `FastRCNN` alone, in inference mode, on the CPU.
        preprocess: the mean, std and padding that it was trained with.
    Raises:
        ConfigError: the exporter is not installed.
        ExportError: the detector cannot be followed or written.
    """
    graph = DeployGraph(detector, preprocess)
    require("onnx").save(to_onnx(trace(graph), graph), path)


def _finished(model: Any, exported: Exported, samples: Iterable[Sample]) -> Any:
    if exported.precision == "int8":
        model = quantize(model, samples)
    if exported.resizes:
        model = with_resize(model, exported.preprocess, exported.outputs, width=exported.postprocess.detections)
    require("onnx").checker.check_model(model)
    return model


def _save_openvino(model: Any, path: Path, *, smooth: bool) -> None:
    openvino = require("openvino")
    converted = openvino.Core().read_model(model.SerializeToString(), b"")
    if smooth:
        _smooth(converted)
    openvino.save_model(converted, path, compress_to_fp16=False)


def _smooth(model: Any) -> None:
    """Let the resizing of images smooth before it shrinks: OpenVINO's reader of ONNX passes over that wish."""
    resize = next(each for each in model.get_ordered_ops() if each.get_type_name() == "Interpolate")
    resize.set_attribute("mode", "bilinear_pillow")
    resize.set_attribute("antialias", False)
    model.validate_nodes_and_infer_types()
