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
    while (found := _splittable(graph)) is not None:  # each split replaces the nodes: a cascade has several
        concat, chain = found
        shape = chain[0].input[1]  # that pooled maps are brought into
        _split(graph, concat, chain)
        if shape not in _read(graph):
            _remove_constant(graph, shape)


def _splittable(graph: Any) -> tuple[Any, list[Any]] | None:
    """A concatenation of pooled maps, and what stands behind it, where it can be moved."""
    pooled = {output for node in graph.node if node.op_type == "RoiAlign" for output in node.output}
    for node in graph.node:
        if node.op_type == "Concat" and pooled.issuperset(node.input) and _attributes(node)["axis"].i == 0:
            chain = _first_layer(graph, node)
            if chain is not None:
                return node, chain
    return None


def _first_layer(graph: Any, concat: Any) -> list[Any] | None:
    """Flattening, layer and ReLU behind a concatenation, if that is what stands there and nothing else reads it."""
    read = [*_read(graph), *(output.name for output in graph.output)]
    node, chain = concat, []
    for kind in _LAYER:
        readers = [each for each in graph.node if each.input and each.input[0] == node.output[0]]
        if read.count(node.output[0]) != 1 or not readers or readers[0].op_type != kind:
            return None
        node = readers[0]
        chain.append(node)
    shape = _shape_of(graph, concat.output[0])
    if len(shape) != 4 or 0 in shape[1:]:
        return None
    return chain if _is_linear(graph, chain[1], math.prod(shape[1:])) else None


def _is_linear(graph: Any, gemm: Any, columns: int) -> bool:
    """Whether each row of so many columns is multiplied by a constant matrix, and perhaps gets a constant bias."""
    numbers = {name: attribute.f or attribute.i for name, attribute in _attributes(gemm).items()}
    usual = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}
    dims = {each.name: list(each.dims) for each in graph.initializer}
    weight, *bias = (dims.get(name, []) for name in gemm.input[1:])
    return (
        {**usual, "transB": 0, **numbers} == usual
        and len(weight) == 2
        and weight[1] == columns
        and all(len(each) == 1 for each in bias)
    )


def _attributes(node: Any) -> dict[str, Any]:
    return {attribute.name: attribute for attribute in node.attribute}


def _read(graph: Any) -> list[str]:
    """What the nodes of a graph read, also those in branches and loops inside, once for each time."""
    inner = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return [name for node in graph.node for name in node.input] + [name for each in inner for name in _read(each)]


def _remove_constant(graph: Any, name: str) -> None:
    for each in [each for each in graph.initializer if each.name == name]:
        graph.initializer.remove(each)


def _shape_of(graph: Any, name: str) -> list[int]:
    """Of a value; 0 for what is not fixed, empty when nothing is known."""
    value = next((each for each in graph.value_info if each.name == name), None)
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim] if value is not None else []


def _split(graph: Any, concat: Any, chain: list[Any]) -> None:
    helper = require("onnx").helper
    _, layer, relu = chain
    added = []
    for level, pooled in enumerate(concat.input):
        flat, linear, active = (f"{node.output[0]}.level_{level}" for node in chain)
        added += [
            helper.make_node("Flatten", [pooled], [flat], name=flat, axis=1),
            helper.make_node("Gemm", [flat, *layer.input[1:]], [linear], name=linear, transB=1),
            helper.make_node("Relu", [linear], [active], name=active),
        ]
        concat.input[level] = active
    concat.output[0] = relu.output[0]
    place = list(graph.node).index(concat)
    nodes = [*graph.node[:place], *added, *graph.node[place:]]
    del graph.node[:]
    graph.node.extend(node for node in nodes if node not in chain)
