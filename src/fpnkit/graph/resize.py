"""Resizing inside an ONNX graph: whole images in, boxes in their own pixels out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..data.pixels import PreprocessConfig
from ..outputs import OutputSpec
from .runtimes import INPUTS, require

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
after ({given}, float[4] scale, float[4] border) => ({made})
{{
  {lines}
}}
"""

_ONNX_TYPES = {"float32": "float", "int64": "int64", "int32": "int32", "uint8": "uint8", "bool": "bool"}


def with_resize(model: Any, config: PreprocessConfig, outputs: Sequence[OutputSpec], *, width: int) -> Any:
    """A graph of any image size that brings images to the network's size by itself.

    Args:
        model: an `onnx.ModelProto` of `DeployGraph`, which takes pixels.
        config: the size, and whether to smooth before shrinking.
        outputs: of the detector.
        width: D, detections an image.
    Returns:
        `images` (N, H, W, 3) uint8 -> the outputs of `DeployGraph`, boxes in pixels of `images`.
    """
    onnx = require("onnx")
    numbers = {"ir": model.ir_version, "opset": model.opset_import[0].version}
    sides = {"short_side": config.short_side, "long_side": config.long_side, "antialias": int(config.antialias)}
    before = onnx.parser.parse_model(_BEFORE.format(**numbers, **sides))
    after = onnx.parser.parse_model(_AFTER.format(**numbers, **_restoring(outputs, width)))
    network = onnx.compose.add_prefix(
        model,
        "network_",
        rename_nodes=False,
        rename_edges=False,
        rename_initializers=False,
        rename_value_infos=False,
        rename_functions=False,
    )
    names = [*(spec.name for spec in outputs), "count"]
    given, found = ([f"network_{name}" for name in each] for each in (INPUTS, names))
    kept = ["scale", "border", *found]
    resized = onnx.compose.merge_models(before, network, io_map=[(name, name) for name in given], outputs=kept)
    return onnx.compose.merge_models(resized, after, io_map=[(name, name) for name in kept])


def _restoring(outputs: Sequence[OutputSpec], width: int) -> dict[str, str]:
    """The text behind the network: boxes are brought to the image's own pixels, all else is passed on."""
    types = {}
    lines = ["x_and_y = Constant <value_ints = [0, 1]> ()"]
    lines += [f"{name}_xy = Gather ({name}, x_and_y)" for name in ("scale", "border")]
    for spec in outputs:
        shape = ", ".join(map(str, ("batch", width, *spec.shape)))
        types[spec.name] = f"{_ONNX_TYPES[spec.dtype]}[{shape}]"
        if spec.name.endswith(("_xyxy", "_xy")):
            suffix = "" if spec.name.endswith("_xyxy") else "_xy"
            lines += [f"scaled_{spec.name} = Mul (network_{spec.name}, scale{suffix})"]
            lines += [f"{spec.name} = Min (scaled_{spec.name}, border{suffix})"]
        else:
            lines += [f"{spec.name} = Identity (network_{spec.name})"]
    types["count"] = "int64[batch]"
    lines += ["count = Identity (network_count)"]
    return {
        "given": ", ".join(f"{kind} network_{name}" for name, kind in types.items()),
        "made": ", ".join(f"{kind} {name}" for name, kind in types.items()),
        "lines": "\n  ".join(lines),
    }
