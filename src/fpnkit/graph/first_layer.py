"""The RoI head's first layer, level by level: pooled maps are never brought together."""

from __future__ import annotations

import math
from typing import Any

from .runtimes import require

_LAYER = ("Reshape", "Gemm", "Relu")
"""What stands between pooled maps and the second layer: flattening, and the first."""


def split_first_layer(model: Any) -> None:
    """Move the concatenation of the levels' pooled maps behind the first fully connected layer, in place.

    RoIAlign gives 49 d numbers an RoI and the layer makes 1,024 of them: with d = 256 that is a twelfth to move.

    Args:
        model: an `onnx.ModelProto` of `DeployGraph` with the shapes of its values. Where pooled maps go through
            anything but flattening, a fully connected layer and ReLU, and there alone, they stay as they are.
    """
    graph = model.graph
    pooled = {output for node in graph.node if node.op_type == "RoiAlign" for output in node.output}
    for concat in [node for node in graph.node if node.op_type == "Concat" and pooled.issuperset(node.input)]:
        if (chain := _first_layer(graph, concat)) is not None:
            _split(graph, concat, chain)
    read = {name for node in graph.node for name in node.input}
    for shape in [each for each in graph.initializer if each.name not in read]:
        graph.initializer.remove(shape)


def _first_layer(graph: Any, concat: Any) -> list[Any] | None:
    """Flattening, layer and ReLU behind a concatenation, if that is what stands there and nothing else reads it."""
    given = {output.name for output in graph.output}
    node, chain = concat, []
    for kind in _LAYER:
        readers = [each for each in graph.node if node.output[0] in each.input]
        if len(readers) != 1 or readers[0].op_type != kind or node.output[0] in given:
            return None
        node = readers[0]
        chain.append(node)
    layer = {attribute.name: attribute for attribute in chain[1].attribute}
    plain = all(layer[name].f == 1.0 for name in ("alpha", "beta") if name in layer) and "transA" not in layer
    weight = next((each for each in graph.initializer if each.name == chain[1].input[1]), None)
    shape = _shape_of(graph, concat.output[0])
    if not plain or "transB" not in layer or weight is None or len(shape) != 4 or 0 in shape[1:]:
        return None
    return chain if weight.dims[1] == math.prod(shape[1:]) else None


def _shape_of(graph: Any, name: str) -> list[int]:
    """Of a value; 0 for what is not fixed, empty when nothing is known."""
    value = next((each for each in graph.value_info if each.name == name), None)
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim] if value is not None else []


def _split(graph: Any, concat: Any, chain: list[Any]) -> None:
    helper = require("onnx").helper
    flatten, layer, relu = chain
    added = []
    for level, pooled in enumerate(concat.input):
        flat, linear, active = (f"{node.output[0]}.level_{level}" for node in chain)
        added += [
            helper.make_node("Flatten", [pooled], [flat], name=f"{flatten.name}.level_{level}", axis=1),
            helper.make_node("Gemm", [flat, *layer.input[1:]], [linear], name=f"{layer.name}.level_{level}", transB=1),
            helper.make_node("Relu", [linear], [active], name=f"{relu.name}.level_{level}"),
        ]
        concat.input[level] = active
    concat.output[0] = relu.output[0]
    place = list(graph.node).index(concat)
    nodes = [*graph.node[:place], *added, *graph.node[place:]]
    del graph.node[:]
    graph.node.extend(node for node in nodes if node not in chain)
