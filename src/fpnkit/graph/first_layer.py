"""The RoI head's first layer, level by level: pooled maps are never brought together."""

from __future__ import annotations

from typing import Any

from .runtimes import require

_LAYER = ("Reshape", "Gemm", "Relu")
"""What stands between pooled maps and the second layer: flattening, and the first."""


def split_first_layer(model: Any) -> None:
    """Move the concatenation of the levels' pooled maps behind the first fully connected layer, in place.

    RoIAlign gives 49 d numbers an RoI and the layer makes 1,024 of them: with d = 256 that is a twelfth to move.

    Args:
        model: an `onnx.ModelProto` of `DeployGraph`, with a RoI head or several; that of an RPN stays as it is.
    """
    graph = model.graph
    while (concat := _joined_pooled(graph)) is not None:
        _split(graph, concat)
    read = {name for node in graph.node for name in node.input}
    for shape in [each for each in graph.initializer if each.name not in read]:
        graph.initializer.remove(shape)


def _joined_pooled(graph: Any) -> Any | None:
    """A concatenation of pooled maps."""
    pooled = {output for node in graph.node if node.op_type == "RoiAlign" for output in node.output}
    joined = (node for node in graph.node if node.op_type == "Concat" and pooled.issuperset(node.input))
    return next(joined, None)


def _split(graph: Any, concat: Any) -> None:
    helper = require("onnx").helper
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    flatten, layer, relu = chain = _behind(concat, readers)
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


def _behind(node: Any, readers: dict[str, list[Any]]) -> list[Any]:
    chain = []
    for kind in _LAYER:
        (node,) = readers[node.output[0]]
        if node.op_type != kind:
            raise ValueError(f"expected {kind} behind the pooled maps, got {node.op_type}")
        chain.append(node)
    return chain
