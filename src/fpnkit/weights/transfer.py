"""Start from a detector that knows other classes: rows of class layers are copied by the names of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..detectors import Detector
from ..errors import CheckpointError
from ..structures import ClassLayer
from .checkpoint import ModelCard, fill, read_card, read_tensors


@dataclass(frozen=True)
class Transfer:
    """What a fine-tuning starts with.

    Attributes:
        path: the weights.
        kept: classes whose rows were copied.
        new: classes that start at random.
        dropped: classes of the weights that the detector does not have.
    """

    path: Path
    kept: tuple[str, ...]
    new: tuple[str, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        rows = (("classes kept", self.kept), ("new", self.new), ("dropped", self.dropped))
        return f"{self.path}: all layers; " + "; ".join(
            f"{what}: {_some(classes)}" for what, classes in rows if classes
        )


def transfer_weights(detector: Detector, classes: Sequence[str], path: Path) -> Transfer:
    """Fill a new detector from weights of the same architecture, whatever their classes.

    Args:
        detector: new; classes that the weights do not know keep its random rows.
        classes: of the detector, by label.
        path: weights of fpnkit.
    Returns:
        What was kept and what is new. Classes are the same when their names are, but for capitals.
    Raises:
        CheckpointError: damaged weights, or of another architecture: the first tensor that differs is named.
    """
    card, state = read_card(path), read_tensors(path)
    theirs = {name.casefold(): label for label, name in enumerate(card.classes)}
    pairs = {label: theirs[name.casefold()] for label, name in enumerate(classes) if name.casefold() in theirs}
    own = detector.state_dict()
    layers = {f"{each.name}.{part}": each for each in detector.class_layers() for part in ("weight", "bias")}
    layers = {key: layer for key, layer in layers.items() if key in own}
    _require_same(own, state, layers, card, path)
    for key, layer in layers.items():
        state[key] = _rows(own[key], state[key], pairs, layer)
    fill(detector, state, path)
    known = set(pairs.values())
    return Transfer(
        path,
        kept=tuple(classes[label] for label in pairs),
        new=tuple(name for label, name in enumerate(classes) if label not in pairs),
        dropped=tuple(name for label, name in enumerate(card.classes) if label not in known),
    )


def _rows(own: Tensor, theirs: Tensor, pairs: dict[int, int], layer: ClassLayer) -> Tensor:
    """Our rows, with theirs where a class is the same, and for the background behind them."""
    made = own.clone()
    if layer.background:
        made[-1] = theirs[-1]
    for ours, other in pairs.items():
        made[ours * layer.rows : (ours + 1) * layer.rows] = theirs[other * layer.rows : (other + 1) * layer.rows]
    return made


def _require_same(
    own: dict[str, Tensor], state: dict[str, Tensor], layers: dict[str, ClassLayer], card: ModelCard, path: Path
) -> None:
    """Name the first tensor that differs, in the order of the detector; class layers have as many rows as classes."""
    for name in [*own, *state]:
        wanted = tuple(own[name].shape) if name in own else None
        found = tuple(state[name].shape) if name in state else None
        if name in layers and wanted:
            wanted = (len(card.classes) * layers[name].rows + layers[name].background, *wanted[1:])
        if wanted != found:
            raise CheckpointError(
                f"{path}: of another architecture ({card.name}): at {name} the model has {_described(wanted)}, the "
                f"weights have {_described(found)}: train the model of these weights, or start from weights of your "
                "model or of its backbone"
            )


def _described(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else f"shape {shape}"


def _some(classes: Sequence[str], most: int = 10) -> str:
    return ", ".join(classes[:most]) + (f" and {len(classes) - most} more" if len(classes) > most else "")
