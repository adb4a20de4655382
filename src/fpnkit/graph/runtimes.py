"""What executes an exported graph: ONNX Runtime or OpenVINO, behind one call; PyTorch is in `torch_runtime`.

Every runtime takes `images` and `sizes` as `DeployGraph` does and returns its outputs, as arrays in the graph's order.
Several threads may call one runtime at a time. A runtime can be pickled: it is opened again from its file.
"""

from __future__ import annotations

import importlib
import threading
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import CheckpointError, ConfigError

INPUTS = ("images", "sizes")
"""What a graph takes, in this order; one that resizes by itself takes images alone."""

Outputs = tuple[np.ndarray, ...]
"""The detector's outputs (N, D, ...), then count (N,)."""


class Runtime(Protocol):
    """An exported graph, ready to run."""

    def __call__(self, images: np.ndarray, sizes: np.ndarray) -> Outputs:
        """The outputs of `DeployGraph` for its two inputs; `images` alone where the graph resizes by itself."""


class OnnxRuntime:
    """An ONNX graph in ONNX Runtime, on the CPU.

    Args:
        path: a .onnx file.
        threads: of one pass; by default all cores.
    """

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        self._settings = (path, threads)
        onnxruntime = require("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = opened(
            path, lambda: onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        )
        self._inputs = [each.name for each in self._session.get_inputs()]

    def __call__(self, images: np.ndarray, sizes: np.ndarray) -> Outputs:
        """See `Runtime`."""
        given = dict(zip(INPUTS, (images, sizes), strict=True))
        return tuple(self._session.run(None, {name: given[name] for name in self._inputs}))

    def __reduce__(self) -> Any:
        path, threads = self._settings
        return partial(OnnxRuntime, path, threads=threads), ()


class OpenVinoRuntime:
    """An OpenVINO or ONNX graph in OpenVINO, on the CPU.

    Args:
        path: a .xml or .onnx file.
        precision: `float32`, or `bf16` for all that CPUs can compute in it.
        cache: folder for the compiled graph; the next start with the same graph, OpenVINO and CPU takes it.
        threads: of all streams; by default all cores.
        streams: passes at a time.
    """

    def __init__(
        self, path: Path, *, precision: str = "float32", cache: Path | None = None, threads: int = 0, streams: int = 1
    ) -> None:
        self._settings: tuple[Path, dict[str, Any]] = (
            path,
            {"precision": precision, "cache": cache, "threads": threads, "streams": streams},
        )
        openvino = require("openvino")
        config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads,
        }
        if cache:
            config["CACHE_DIR"] = str(cache)
        core = openvino.Core()
        self._compiled = opened(path, lambda: core.compile_model(path, "CPU", config))
        self._inputs = [each.get_any_name() for each in self._compiled.inputs]
        self._own = threading.local()

    def __call__(self, images: np.ndarray, sizes: np.ndarray) -> Outputs:
        """See `Runtime`."""
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        request, given = self._own.request, dict(zip(INPUTS, (images, sizes), strict=True))
        request.infer({name: given[name] for name in self._inputs}, share_inputs=True)
        return tuple(output.data.copy() for output in request.output_tensors)

    def __reduce__(self) -> Any:
        path, settings = self._settings
        return partial(OpenVinoRuntime, path, **settings), ()


def require(*modules: str) -> Any:
    """The first of these modules, when all are installed.

    Raises:
        ConfigError: one is not.
    """
    try:
        first, *_ = [importlib.import_module(module) for module in modules]
    except ImportError as error:
        raise ConfigError(f"{error.name or modules[0]} is not installed: pip install 'fpnkit[export]'") from None
    return first


def opened(path: Path, load: Any) -> Any:
    """What `load` returns, or one line that says which file is damaged."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        return load()
    except Exception as error:  # each runtime has its own
        raise CheckpointError(f"{path}: cannot be loaded: {str(error).splitlines()[0]}") from None
