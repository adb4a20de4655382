"""Weights and training states on disk: written whole or not at all, read without running anything.

Weights are safetensors files whose header says how their model is built. Training states are torch files read
with `weights_only=True`, which builds tensors and plain containers and executes no pickled code.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..data.pixels import PreprocessConfig
from ..detectors import Detector
from ..errors import CheckpointError, ConfigError
from ..files import cause_of, replaced_whole, require_file
from ..settings import as_plain, from_plain
from ..version import __version__
from ..zoo.builder import build
from ..zoo.presets import name_of, preset
from ..zoo.spec import ModelSpec

FORMAT = 2
"""Of the header. Format 1 named a preset where format 2 holds the whole spec."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a weights file says about itself.

    Attributes:
        classes: names, by label.
        spec: how its network is built; None for a detector of your own, which only your own code can build.
        preprocess: how its images are prepared; `spec.preprocess` where there is a spec.
        name: the preset's name, or a short description; the class's name of a detector of your own.
    Raises:
        ConfigError: no class, one named twice, or a `preprocess` that is not the spec's.
    """

    classes: tuple[str, ...]
    spec: ModelSpec | None
    preprocess: PreprocessConfig
    name: str

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ConfigError(f"expected one class or more, each named once, got {self.classes}")
        if self.spec is not None and self.spec.preprocess != self.preprocess:
            raise ConfigError("a card expects the preprocess of its spec, got another: make it by ModelCard.of_spec")

    @classmethod
    def of_spec(cls, spec: ModelSpec, classes: Sequence[str]) -> ModelCard:
        """The card of a model that `build(spec, len(classes))` makes."""
        return cls(classes=tuple(classes), spec=spec, preprocess=spec.preprocess, name=name_of(spec))

    @classmethod
    def of_detector(cls, detector: Detector, preprocess: PreprocessConfig, classes: Sequence[str]) -> ModelCard:
        """The card of a detector of your own."""
        return cls(classes=tuple(classes), spec=None, preprocess=preprocess, name=type(detector).__name__)

    def as_plain(self) -> dict[str, Any]:
        """What the header of a weights file holds."""
        content: dict[str, Any] = {"format": FORMAT, "fpnkit": __version__, "name": self.name}
        content["classes"] = list(self.classes)
        if self.spec is None:
            return {**content, "spec": None, "preprocess": as_plain(self.preprocess)}
        return {**content, "spec": self.spec.as_plain()}

    @classmethod
    def from_plain(cls, content: Any) -> ModelCard:
        """A card from what `as_plain` gave, or from a header of format 1.

        Raises:
            ConfigError, KeyError, TypeError: it is not what it should be.
        """
        if not isinstance(content["classes"], list):
            raise TypeError("its classes are no list")
        classes = tuple(map(str, content["classes"]))
        if content["format"] == 1:
            known = preset(str(content["model"]))
            preprocess = from_plain(PreprocessConfig, content["preprocess"])
            return cls.of_spec(replace(known, preprocess=preprocess), classes)
        if content["spec"] is not None:
            return cls.of_spec(ModelSpec.from_plain(content["spec"]), classes)
        preprocess = from_plain(PreprocessConfig, content["preprocess"])
        return cls(classes=classes, spec=None, preprocess=preprocess, name=str(content["name"]))


def save_weights(path: str | Path, detector: Detector, card: ModelCard, *, half: bool = False) -> None:
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
    with replaced_whole(Path(path)) as temporary:
        try:
            save_file(state, temporary, metadata={"fpnkit": json.dumps(card.as_plain())})
        except SafetensorError as error:  # a full disk comes as one
            raise OSError(str(error)) from error


def read_card(path: str | Path) -> ModelCard:
    """What model a weights file holds, without its tensors.

    Raises:
        CheckpointError: missing, damaged, or not written by fpnkit.
    """
    path = Path(path)
    content = read_header(path)
    if content is None:
        raise CheckpointError(f"{path}: a safetensors file, but not one of fpnkit: it names no model")
    try:
        if content["format"] not in (1, FORMAT):
            raise CheckpointError(f"{path}: written in format {content['format']}, this fpnkit reads 1 and {FORMAT}")
        return ModelCard.from_plain(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: its description of the model is damaged: {error}") from None


def read_header(path: Path) -> dict[str, Any] | None:
    """What fpnkit wrote into the header of a safetensors file; None in a file of others.

    Raises:
        CheckpointError: missing or damaged.
    """
    with _opened(path) as file:
        text = (file.metadata() or {}).get("fpnkit")
    if text is None:
        return None
    try:
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its description of the model is damaged: {error}") from None
    return content


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name.

    Raises:
        CheckpointError: missing or damaged.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def load_weights(path: str | Path, *, detector: Detector | None = None) -> tuple[Detector, ModelCard]:
    """The detector that a weights file describes, in inference mode.

    Args:
        path: the file.
        detector: to be filled; needed where the file is of a detector of your own, which cannot be built from here.
    Returns:
        `detector` where it is given, else a new one; and what the file says of it.
    Raises:
        CheckpointError: missing, damaged, of another model, or with values that are not finite.
        ConfigError: the file is of a detector of your own and none is given.
    """
    path = Path(path)
    card = read_card(path)
    if detector is None:
        detector = _built(path, card)
    elif detector.num_classes != len(card.classes):
        raise CheckpointError(
            f"{path}: holds a detector of {len(card.classes)} classes, the one that is given has {detector.num_classes}"
        )
    fill(detector, read_tensors(path), path)
    return detector.eval(), card


def fill(detector: Detector, state: dict[str, Tensor], path: Path) -> None:
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


def _built(path: Path, card: ModelCard) -> Detector:
    if card.spec is None:
        raise ConfigError(
            f"{path}: weights of {card.name}, a detector of your own: pass one, load_weights(path, detector=...)"
        )
    try:
        return build(card.spec, len(card.classes))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None


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
