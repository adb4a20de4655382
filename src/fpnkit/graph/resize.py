"""Resizing inside an ONNX graph: whole images in, boxes in their own pixels out."""

from __future__ import annotations

from typing import Any

from ..data.preprocess import PreprocessConfig
from .deploy import INPUTS, OUTPUTS
from .runtimes import require

_BEFORE = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
before (uint8[batch, height, width, 3] images) =>
       (uint8[batch, h, w, 3] network_images, float[batch, 2] network_sizes, float[4] scale, float[4] border)
{{
  whole = Shape <start = 1, end = 3> (images)
  short = ReduceMin (whole)
  long = ReduceMax (whole)
  short_side = Constant <value_ints = [{short_side}]> ()
  long_side = Constant <value_ints = [{long_side}]> ()
  times_short = Mul (whole, short_side)
  times_long = Mul (whole, long_side)
  by_short = Div (times_short, short)
  by_long = Div (times_long, long)
  smaller = Min (by_short, by_long)
  one = Constant <value_ints = [1]> ()
  size = Max (smaller, one)

  colours_first = Transpose <perm = [0, 3, 1, 2]> (images)
  real = Cast <to = 1> (colours_first)
  lead = Shape <start = 0, end = 2> (colours_first)
  target = Concat <axis = 0> (lead, size)
  resized = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel", antialias = {antialias}>
            (real, , , target)
  black = Constant <value_float = 0.0> ()
  white = Constant <value_float = 255.0> ()
  rounded = Round (resized)
  clipped = Clip (rounded, black, white)
  bytes = Cast <to = 2> (clipped)
  network_images = Transpose <perm = [0, 2, 3, 1]> (bytes)

  real_size = Cast <to = 1> (size)
  images_count = Shape <start = 0, end = 1> (images)
  two = Constant <value_ints = [2]> ()
  each = Concat <axis = 0> (images_count, two)
  network_sizes = Expand (real_size, each)

  real_whole = Cast <to = 1> (whole)
  ratio = Div (real_whole, real_size)
  width_height_twice = Constant <value_ints = [1, 0, 1, 0]> ()
  scale = Gather (ratio, width_height_twice)
  border = Gather (real_whole, width_height_twice)
}}
"""

_AFTER = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
after (float[batch, {width}, 4] network_boxes_xyxy, float[batch, {width}] network_scores,
       int64[batch, {width}] network_labels, int64[batch, {width}] network_levels, int64[batch] network_count,
       float[4] scale, float[4] border) =>
      (float[batch, {width}, 4] boxes_xyxy, float[batch, {width}] scores, int64[batch, {width}] labels,
       int64[batch, {width}] levels, int64[batch] count)
{{
  scaled = Mul (network_boxes_xyxy, scale)
  boxes_xyxy = Min (scaled, border)
  scores = Identity (network_scores)
  labels = Identity (network_labels)
  levels = Identity (network_levels)
  count = Identity (network_count)
}}
"""


def with_resize(model: Any, config: PreprocessConfig, *, width: int) -> Any:
    """A graph of any image size that brings images to the network's size by itself.

    Args:
        model: an `onnx.ModelProto` of `DeployGraph`, which takes pixels.
        config: the size, and whether to smooth before shrinking.
        width: D, detections an image.
    Returns:
        `images` (N, H, W, 3) uint8 -> the outputs of `DeployGraph`, boxes in pixels of `images`.
    """
    onnx = require("onnx")
    numbers = {"ir": model.ir_version, "opset": model.opset_import[0].version, "width": width}
    sides = {"short_side": config.short_side, "long_side": config.long_side, "antialias": int(config.antialias)}
    before = onnx.parser.parse_model(_BEFORE.format(**numbers, **sides))
    after = onnx.parser.parse_model(_AFTER.format(**numbers))
    network = onnx.compose.add_prefix(
        model,
        "network_",
        rename_nodes=False,
        rename_edges=False,
        rename_initializers=False,
        rename_value_infos=False,
        rename_functions=False,
    )
    inputs, outputs = ([f"network_{name}" for name in names] for names in (INPUTS, OUTPUTS))
    kept = ["scale", "border", *outputs]
    resized = onnx.compose.merge_models(before, network, io_map=[(name, name) for name in inputs], outputs=kept)
    return onnx.compose.merge_models(resized, after, io_map=[(name, name) for name in kept])
