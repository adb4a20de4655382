"""The first layer of an RoI head is moved in front of a concatenation where that changes nothing, and only there."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from fpnkit.graph.first_layer import split_first_layer

PLAIN = """
  shape = Constant <value_ints = [-1, 36]> ()
  flat = Reshape (maps, shape)
  linear = Gemm <transB = 1> (flat, weight, bias)
  found = Relu (linear)
"""
OTHERS = {
    "a norm before the layer": PLAIN.replace("(flat,", "(normed,").replace(
        "linear =", "normed = LayerNormalization (flat, scale)\n  linear =", 1
    ),
    "another activation": PLAIN.replace("Relu", "Sigmoid"),
    "no activation": PLAIN.replace("found = Relu (linear)", "found = Identity (linear)"),
    "maps that are read twice": PLAIN.replace("Relu (linear)", "Add (active, mean)").replace(
        "found", "active = Relu (linear)\n  mean = ReduceMean <keepdims = 1> (flat, one)\n  found"
    ),
    "a layer that is read twice": PLAIN.replace(
        "found = Relu (linear)", "active = Relu (linear)\n  found = Add (active, linear)"
    ),
    "a scaled layer": PLAIN.replace("transB = 1", "transB = 1, alpha = 0.5"),
    "a weight that is turned": PLAIN.replace("transB = 1", "transB = 0").replace("weight", "square"),
    "a bias for each row": PLAIN.replace("(flat, weight, bias)", "(flat, weight, rows)"),
    "cells as rows": PLAIN.replace("[-1, 36]", "[-1, 9]").replace("weight", "cells"),
    "a branch that reads the maps": PLAIN.replace(
        "found = Relu (linear)",
        """active = Relu (linear)
  extra = If (yes) <
    then_branch = some () => (float[r, 1] a) { a = ReduceMean <keepdims = 1> (flat, one) },
    else_branch = none () => (float[r, 1] b) { b = ReduceMax <keepdims = 1> (flat, one) }
  >
  found = Add (active, extra)""",
    ),
}


def model(lines: str, *, axis: int = 0) -> onnx.ModelProto:
    """RoIs of two levels, pooled to (r, 4, 3, 3) and concatenated, and what stands behind them."""
    made = onnx.parser.parse_model(
        f"""
<ir_version: 10, opset_import: ["" : 20]>
pooling (float[1, 4, 16, 16] fine, float[1, 4, 8, 8] coarse, float[a, 4] small, float[b, 4] large) =>
        (float[r, q] found)
{{
  first = ConstantOfShape <value = int64[1] {{0}}> (shape_small)
  second = ConstantOfShape <value = int64[1] {{0}}> (shape_large)
  one_map = RoiAlign <output_height = 3, output_width = 3> (fine, small, first)
  other_map = RoiAlign <output_height = 3, output_width = 3> (coarse, large, second)
  maps = Concat <axis = {axis}> (one_map, other_map)
  {lines}
}}
""".replace("  first =", "  shape_small = Shape <end = 1> (small)\n  shape_large = Shape <end = 1> (large)\n  first =")
    )
    dice = np.random.default_rng(0)
    sizes = {"weight": (36, 36), "square": (36, 36), "cells": (36, 9), "bias": (36,), "scale": (36,), "rows": (5, 36)}
    values = {name: dice.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    values |= {"one": np.array([1]), "yes": np.array(True), "kept": np.zeros(3, np.float32)}
    for name, value in values.items():
        made.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return onnx.shape_inference.infer_shapes(made)


def run(made: onnx.ModelProto) -> np.ndarray:
    dice = np.random.default_rng(1)
    corners = dice.uniform(0, 5, size=(5, 2)).astype(np.float32)
    rois = np.concatenate([corners, corners + 2], axis=1)
    fine, coarse = (dice.normal(size=(1, 4, side, side)).astype(np.float32) for side in (16, 8))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(made.SerializeToString(), options)
    return session.run(None, {"fine": fine, "coarse": coarse, "small": rois[:2], "large": rois[2:]})[0]


def readers_of_pooled(made: onnx.ModelProto) -> list[str]:
    pooled = {node.output[0] for node in made.graph.node if node.op_type == "RoiAlign"}
    return [node.op_type for node in made.graph.node for name in node.input if name in pooled]


def test_flattening_layer_and_relu_are_computed_level_by_level():
    made = model(PLAIN)
    before = run(made)
    split_first_layer(made)
    assert readers_of_pooled(made) == ["Flatten", "Flatten"]
    assert [node.op_type for node in made.graph.node].count("Gemm") == 2
    np.testing.assert_allclose(run(made), before, atol=1e-5)
    assert before.std() > 0.1


@pytest.mark.parametrize("kind", OTHERS)
def test_whatever_else_stands_there_is_left_as_it_is(kind):
    made = model(OTHERS[kind])
    before = made.SerializeToString()
    assert run(made).std() > 0.01  # it is a graph that runs
    split_first_layer(made)
    assert made.SerializeToString() == before


def test_levels_side_by_side_are_left_as_they_are():
    """Both levels of one RoI as channels of one map."""
    made = model(PLAIN.replace("[-1, 36]", "[-1, 72]").replace("weight", "wide"), axis=1)
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((36, 72), np.float32), "wide"))
    made = onnx.shape_inference.infer_shapes(made)
    before = made.SerializeToString()
    split_first_layer(made)
    assert made.SerializeToString() == before


def test_constants_that_were_not_the_heads_stay():
    made = model(PLAIN)
    names = {each.name for each in made.graph.initializer}
    split_first_layer(made)
    assert {each.name for each in made.graph.initializer} == names


def test_every_head_of_a_cascade_is_split():
    second = """
  maps_2 = Concat <axis = 0> (other_map, one_map)
  flat_2 = Reshape (maps_2, shape)
  linear_2 = Gemm <transB = 1> (flat_2, weight, bias)
  active_2 = Relu (linear_2)
  found = Add (active, active_2)
"""
    made = model(PLAIN.replace("found = Relu", "active = Relu") + second)
    before = run(made)
    split_first_layer(made)
    assert readers_of_pooled(made) == ["Flatten"] * 4
    np.testing.assert_allclose(run(made), before, atol=1e-5)
