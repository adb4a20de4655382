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
        model: an `onnx.ModelProto` of `DeployGraph`; that of an RPN has no such layer and stays as it is.
    """
    helper, graph = require("onnx").helper, model.graph
    maker = {output: node for node in graph.node for output in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    (concat,) = [
        node
        for node in graph.node
        if node.op_type == "Concat" and all(name in maker and maker[name].op_type == "RoiAlign" for name in node.input)
    ] or [None]
    if concat is None:
        return
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
    (shape,) = [each for each in graph.initializer if each.name == flatten.input[1]]
    graph.initializer.remove(shape)
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
