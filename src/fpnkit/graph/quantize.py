"""int8 by calibration on real images: the convolutions of backbone, pyramid and RPN; boxes stay in float."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from .runtimes import INPUTS, require

Sample = tuple[np.ndarray, np.ndarray]
"""`images` and `sizes` of a batch."""


def quantize(model: Any, samples: Iterable[Sample]) -> Any:
    """An `onnx.ModelProto` with its body in int8, between QuantizeLinear and DequantizeLinear.

    Weights have 7 bits: with 8, the 16-bit sums of CPUs without VNNI overflow.

    Args:
        model: of `DeployGraph`, in float.
        samples: batches of real images, some hundred for a model that is to be used.
    """
    os.environ.setdefault("NNCF_CI", "1")  # it would report usage to its makers
    nncf = require("nncf")
    nncf.set_log_level(logging.ERROR)
    maker = {output: node.name for node in model.graph.node for output in node.output}
    inputs = {node.name: [maker[name] for name in node.input if name in maker] for node in model.graph.node}
    body = _with_ancestors({node.name for node in model.graph.node if node.op_type == "Conv"}, inputs)
    given = [dict(zip(INPUTS, sample, strict=True)) for sample in samples]
    return nncf.quantize(
        model,
        nncf.Dataset(given),
        subset_size=len(given),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        ignored_scope=nncf.IgnoredScope(names=sorted(inputs.keys() - body), validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
    )


def _with_ancestors(names: set[str], inputs: dict[str, list[str]]) -> set[str]:
    """What convolutions are computed from, and they themselves: all but the detection tail."""
    found, left = set(names), list(names)
    while left:
        for source in inputs[left.pop()]:
            if source not in found:
                found.add(source)
                left.append(source)
    return found
