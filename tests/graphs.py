"""Exports that several tests share: tracing a detector and writing it as ONNX are most of a test's time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from fpnkit.graph import write


@contextlib.contextmanager
def each_made_once() -> Iterator[None]:
    """While it lasts, `fpnkit.graph.write` traces and translates each detector once, for all formats and precisions."""
    programs: dict[Any, Any] = {}
    models: dict[int, Any] = {}
    trace, to_onnx = write.trace, write.to_onnx

    def trace_once(graph, **options):
        network = graph.detector  # is the key itself, so that its id is not used again
        key = (network, getattr(network, "postprocess", None), graph.pixels, *sorted(options.items()))
        if key not in programs:
            programs[key] = trace(graph, **options)
        return programs[key]

    def to_onnx_once(program, graph):
        import onnx

        if id(program) not in models:
            models[id(program)] = to_onnx(program, graph)
        copied = onnx.ModelProto()
        copied.CopyFrom(models[id(program)])
        return copied

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "trace", trace_once)
        patch.setattr(write, "to_onnx", to_onnx_once)
        yield
