"""The graph as ONNX: our two operators in ONNX's own terms, and resizing in front where it is wanted."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from ..errors import ExportError
from .deploy import DeployGraph
from .first_layer import split_first_layer
from .runtimes import require

OPSET = 20
"""The newest that ONNX Runtime 1.32 takes: it has no RoiAlign of opset 22, and refuses NNCF's int8 in opset 21."""

_ANY_SCORE = -1e30
"""Below every score but the -inf of padding, which thereby never survives."""


def to_onnx(program: ExportedProgram, graph: DeployGraph) -> Any:
    """An `onnx.ModelProto` of a traced graph.

    Args:
        program: of `trace`.
        graph: that was traced.
    Raises:
        ConfigError: the exporter is not installed.
        ExportError: torch cannot write the graph as ONNX.
    """
    require("onnx", "onnxscript")
    with _quiet():
        try:
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                custom_translation_table=_translations(),
            )
        except Exception as error:  # the exporter's own, which is not public
            cause = str(error.__cause__ or error).splitlines()[0]
            raise ExportError(f"torch.onnx cannot write this detector: {cause}") from error
    model: Any = exported.model_proto  # type: ignore[union-attr]
    split_first_layer(model)
    _tidy(model)
    return model


def _tidy(model: Any) -> None:
    """Name what is dynamic batch, height and width, not s34 and s90; leave out whose files the graph came from."""
    del model.graph.value_info[:], model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        names = iter(("batch", "height", "width") if value.name == "images" else ("batch", "proposals"))
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = next(names, dim.dim_param)


def _translations() -> dict[Any, Any]:
    """Our operators, written in ONNX, and one of torch's that the exporter lacks."""
    from onnxscript import opset18

    op: Any = opset18

    def ints(*values: int) -> Any:
        return op.Constant(value_ints=list(values))

    def nms_keep(boxes_xyxy: Any, scores: Any, iou_threshold: float) -> Any:
        kept = op.NonMaxSuppression(
            boxes_xyxy,
            op.Unsqueeze(scores, ints(1)),
            op.Shape(scores, start=1, end=2),
            op.Constant(value_float=iou_threshold),
            op.Constant(value_float=_ANY_SCORE),
        )
        places = op.Gather(kept, ints(0, 2), axis=1)  # of row and box; all are of the one class
        ones = op.Expand(op.Constant(value_float=1.0), op.Shape(places, start=0, end=1))
        return op.Cast(op.ScatterND(op.ConstantOfShape(op.Shape(scores)), places, ones), to=9)

    def multi_level_roi_align(
        features: Sequence[Any],
        strides: Sequence[int],
        rois: Any,
        level_index: Any,
        output_size: int,
        sampling_ratio: int,
        aligned: bool,
    ) -> Any:
        image = op.Cast(op.Gather(rois, op.Constant(value_int=0), axis=1), to=7)
        boxes_xyxy = op.Slice(rois, ints(1), ints(5), ints(1))
        pooled, by_level = [], []
        for level, (feature, stride) in enumerate(zip(features, strides, strict=True)):
            here = op.Squeeze(op.NonZero(op.Equal(level_index, op.Constant(value_int=level))), ints(0))
            by_level.append(op.Gather(boxes_xyxy, here))
            pooled.append(
                op.RoiAlign(
                    feature,
                    by_level[-1],
                    op.Gather(image, here),
                    output_height=output_size,
                    output_width=output_size,
                    sampling_ratio=sampling_ratio,
                    spatial_scale=1.0 / stride,
                    coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
                )
            )
        return op.Concat(*pooled, axis=0), op.Concat(*by_level, axis=0)

    def sort_stable(values: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
        return op.TopK(values, op.Shape(values, start=dim), axis=dim, largest=int(descending))

    ours = torch.ops.fpnkit
    return {
        ours.nms_keep.default: nms_keep,
        ours.multi_level_roi_align.default: multi_level_roi_align,
        torch.ops.aten.sort.stable: sort_stable,
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress and warns of what it will change one day; errors still come as exceptions."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
