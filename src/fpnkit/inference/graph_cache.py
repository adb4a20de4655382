"""Exported graphs on disk, and the runtime that suits them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import ConfigError, ExportError
from ..graph.exported import Exported, is_exported, read_card
from ..graph.runtimes import OnnxRuntime, OpenVinoRuntime, Runtime
from .engines import GraphEngine

ENGINES = ("auto", "torch", "onnxruntime", "openvino")

_RUNS = {"onnx": ("openvino", "onnxruntime"), "openvino": ("openvino",), "torch": ("torch",)}
"""Format -> engines that run it, the faster first."""

ENGINES_OF_WEIGHTS = (*_RUNS["onnx"], *_RUNS["torch"])
"""Engines that run weights, of which an ONNX graph is made where they need one."""


def choose_engine(wanted: str, device: str, able: tuple[str, ...] = ENGINES_OF_WEIGHTS) -> str:
    """The engine for a model that these can run, the faster first: the first that is installed for `auto`.

    Raises:
        ConfigError: an unknown engine, one that is not installed, or one that cannot run the model there.
    """
    if wanted not in ENGINES:
        raise ConfigError(f"engine must be one of {', '.join(ENGINES)}, got {wanted!r}")
    able = tuple(each for each in able if device == "cpu" or each == "torch")
    installed = [each for each in able if importlib.util.find_spec(each)]
    if wanted == "auto" and installed:
        return installed[0]
    if wanted in able:
        return wanted
    raise ConfigError(f"engine={wanted} cannot run this model on {device}: {' or '.join(able) or 'nothing'} can")


def engines_of(exported: Exported) -> tuple[str, ...]:
    """The engines that run an exported graph, the faster first."""
    if exported.format == "onnx" and exported.resizes and exported.preprocess.antialias:
        return ("onnxruntime",)  # OpenVINO reads ONNX without its smoothing; the format openvino has it
    return _RUNS[exported.format]


def open_exported(
    folder: Path, *, engine: str = "auto", precision: str | None = None, streams: int = 1, threads: int = 0
) -> tuple[GraphEngine, Exported]:
    """An exported model, ready to detect on the CPU.

    Args:
        folder: written by `fpnkit export`.
        engine: one of `ENGINES`.
        precision: `float32` or `bf16`; by default what the model was exported for.
        streams: passes at a time.
        threads: of all streams; by default all cores.
    Raises:
        CheckpointError: the folder is damaged.
        ConfigError: an engine or precision that is not possible.
    """
    exported = read_card(folder)
    name = choose_engine(engine, "cpu", engines_of(exported))
    runtime = _opened(folder / exported.graph, exported, name, precision, streams, threads)
    return GraphEngine(runtime, exported, name, streams=streams), exported


def _opened(path: Path, exported: Exported, engine: str, precision: str | None, streams: int, threads: int) -> Runtime:
    own = "float32" if exported.precision == "float32" else "bf16"  # what int8 leaves in float is computed in bf16
    if engine == "openvino":
        return OpenVinoRuntime(
            path, precision=precision or own, cache=cache_folder() / "openvino", streams=streams, threads=threads
        )
    if precision not in (None, "float32" if engine == "onnxruntime" else own):
        advice = "use openvino" if "openvino" in engines_of(exported) else "export the weights again"
        raise ConfigError(f"precision={precision}: {engine} runs this graph in {exported.precision}: {advice}")
    if engine == "onnxruntime":
        return OnnxRuntime(path, threads=max(1, (threads or os.cpu_count() or 1) // streams))
    from ..graph.torch_runtime import TorchRuntime

    return TorchRuntime(path)


def cache_folder() -> Path:
    """Where graphs are kept: $FPNKIT_CACHE, or fpnkit in the user's cache folder."""
    own = os.environ.get("FPNKIT_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fpnkit"


@contextlib.contextmanager
def published(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `folder` when all went well; an exported model there is replaced.

    Raises:
        ExportError: `folder` holds something else, or cannot be written.
    """
    if folder.exists() and not is_exported(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder}: there already, and no exported model: choose another place")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".writing-"))
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written: {error.strerror}") from None
    try:
        yield made
        made.chmod(0o755)
        old = made.with_name(made.name + "-old")
        if folder.exists():
            folder.replace(old)
        made.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise ExportError(f"{folder}: could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
