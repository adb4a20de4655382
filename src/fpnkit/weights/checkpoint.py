"""Weights and training states on disk: written whole or not at all, read without running anything.

Weights are safetensors files whose header says what model they are of. Training states are torch files read
with `weights_only=True`, which builds tensors and plain containers and executes no pickled code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..data.preprocess import PreprocessConfig
from ..detectors import FasterRCNN
from ..errors import CheckpointError, ConfigError
from ..files import cause_of, replaced_whole, require_file
from ..version import __version__
from ..zoo import build

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a weights file says about itself.

    Attributes:
        model: name in the zoo.
        classes: names, by label.
        preprocess: how its images are prepared.
    """

    model: str
    classes: tuple[str, ...]
    preprocess: PreprocessConfig

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ConfigError(f"expected one class or more, each named once, got {self.classes}")


def save_weights(path: str | Path, detector: FasterRCNN, card: ModelCard, *, half: bool = False) -> None:
    """Save a detector with its card as safetensors.

    Args:
        path: the file, replaced whole.
        detector: its parameters and buffers.
        card: what `load_weights` needs to build it again.
        half: store floating tensors as float16, half the size, for shipping.
    Raises:
        CheckpointError: the file cannot be written.
    """
    state = {name: _stored(value, half) for name, value in detector.state_dict().items()}
    content = {"format": FORMAT, "fpnkit": __version__, **dataclasses.asdict(card)}
    with replaced_whole(Path(path)) as temporary:
        try:
            save_file(state, temporary, metadata={"fpnkit": json.dumps(content)})
        except SafetensorError as error:  # a full disk comes as one
            raise OSError(str(error)) from error


def read_card(path: str | Path) -> ModelCard:
    """What model a weights file holds, without its tensors.

    Raises:
        CheckpointError: missing, damaged, or not written by fpnkit.
    """
    path = Path(path)
    with _opened(path) as file:
        text = (file.metadata() or {}).get("fpnkit")
    if text is None:
        raise CheckpointError(f"{path}: a safetensors file, but not one of fpnkit: it names no model")
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise CheckpointError(f"{path}: written in format {content['format']}, this fpnkit reads {FORMAT}")
        if not isinstance(content["classes"], list):
            raise TypeError("its classes are no list")
        return ModelCard(
            model=str(content["model"]),
            classes=tuple(map(str, content["classes"])),
            preprocess=PreprocessConfig.from_plain(content["preprocess"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: its description of the model is damaged: {error}") from None


def load_weights(path: str | Path) -> tuple[FasterRCNN, ModelCard]:
    """Build the detector that a weights file describes, in inference mode.

    Raises:
        CheckpointError: missing, damaged, of another model, or with values that are not finite.
    """
    path = Path(path)
    card = read_card(path)
    try:
        detector = build(card.model, len(card.classes))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None
    with _opened(path) as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    fill(detector, state, path)
    return detector.eval(), card


def fill(detector: FasterRCNN, state: dict[str, Tensor], path: Path) -> None:
    """Put a state dict into a detector, or say in one line why it does not fit.

    Raises:
        CheckpointError: missing, surplus, misshapen or not finite tensors.
    """
    own = detector.state_dict()
    missing, surplus = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or surplus:
        named = f"it lacks {missing[0]}" if missing else f"it has {surplus[0]} besides"
        raise CheckpointError(
            f"{path}: not the weights of this model: {named} ({len(missing)} missing, {len(surplus)} too many)"
        )
    for name, value in own.items():
        if state[name].shape != value.shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(state[name].shape)}, the model expects {tuple(value.shape)}: "
                "another model or another number of classes"
            )
        if state[name].is_floating_point() and not torch.isfinite(state[name]).all():
            raise CheckpointError(f"{path}: {name} holds values that are not finite")
    detector.load_state_dict(state)


def read_plain(path: Path) -> Any:
    """Load a torch file of tensors and plain containers; nothing in it is executed.

    Raises:
        CheckpointError: missing, damaged, or with content that would run code.
    """
    require_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {cause_of(error)}") from None
    except Exception:  # unpickling raises anything
        raise CheckpointError(
            f"{path}: not a torch file of plain tensors: damaged, or holding objects that would run code when loaded"
        ) from None


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Save a training state of tensors and plain containers, replaced whole."""
    with replaced_whole(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def load_state(path: Path) -> dict[str, Any]:
    """Load a training state without executing anything in it.

    Raises:
        CheckpointError: missing, damaged, or with content that would run code.
    """
    state = read_plain(path)
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: not a training state: expected a dict, got a {type(state).__name__}")
    return state


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or damaged: {error}") from None


def _stored(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.half() if half and value.is_floating_point() else value.clone()
