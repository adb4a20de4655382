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
    for layer in detector.class_layers():
        for key in (f"{layer.name}.weight", f"{layer.name}.bias"):
            if key in own and key in state:
                state[key] = _rows(key, own[key], state[key], pairs, layer, len(card.classes), path)
    _require_same(own, state, card, path)
    fill(detector, state, path)
    known = set(pairs.values())
    return Transfer(
        path,
        kept=tuple(classes[label] for label in pairs),
        new=tuple(name for label, name in enumerate(classes) if label not in pairs),
        dropped=tuple(name for label, name in enumerate(card.classes) if label not in known),
    )


def _rows(
    key: str, own: Tensor, theirs: Tensor, pairs: dict[int, int], layer: ClassLayer, classes: int, path: Path
) -> Tensor:
    """Our rows, with theirs where a class is the same, and for the background behind them."""
    expected = (classes * layer.rows + layer.background, *own.shape[1:])
    if tuple(theirs.shape) != expected:
        raise CheckpointError(
            f"{path}: {key} has shape {tuple(theirs.shape)}, expected {expected} for its {classes} classes: "
            "weights to start from must be of the same architecture"
        )
    made = own.clone()
    if layer.background:
        made[-1] = theirs[-1]
    for ours, other in pairs.items():
        made[ours * layer.rows : (ours + 1) * layer.rows] = theirs[other * layer.rows : (other + 1) * layer.rows]
    return made


def _require_same(own: dict[str, Tensor], state: dict[str, Tensor], card: ModelCard, path: Path) -> None:
    """Name the first tensor that differs, in the order of the detector."""
    for name in [*own, *state]:
        ours, theirs = own.get(name), state.get(name)
        if ours is None or theirs is None or ours.shape != theirs.shape:
            found = "nothing" if theirs is None else f"shape {tuple(theirs.shape)}"
            wanted = "nothing" if ours is None else f"shape {tuple(ours.shape)}"
            raise CheckpointError(
                f"{path}: of another architecture ({card.name}): at {name} the model has {wanted}, the weights have "
                f"{found}: train the model of these weights, or start from weights of your model or of its backbone"
            )


def _some(classes: Sequence[str], most: int = 10) -> str:
    return ", ".join(classes[:most]) + (f" and {len(classes) - most} more" if len(classes) > most else "")
