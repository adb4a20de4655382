"""Start from a detector that knows other classes: its heads are taken over class by class, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from torch import Tensor

from ..detectors import FasterRCNN
from ..heads import FastRCNNHead
from .checkpoint import fill, load_weights


@dataclass(frozen=True)
class Taken:
    """What a fine-tuning starts with.

    Attributes:
        path: the weights.
        kept: classes whose scores and boxes were known.
        new: classes that start at random.
        dropped: classes of the weights that are not asked for.
    """

    path: Path
    kept: tuple[str, ...]
    new: tuple[str, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        def named(classes: Sequence[str]) -> str:
            return ", ".join(classes[:10]) + (f" and {len(classes) - 10} more" if len(classes) > 10 else "")

        rows = (("classes kept", self.kept), ("made new", self.new), ("dropped", self.dropped))
        heads = "; ".join(f"{what}: {named(classes)}" for what, classes in rows if classes)
        return f"{self.path}: backbone, pyramid, RPN and hidden layers kept; {heads}"


def take_over(detector: FasterRCNN, classes: Sequence[str], path: Path) -> Taken:
    """Fill a fresh detector from weights of the same model, whatever classes they know.

    Args:
        detector: fresh; new classes keep its random weights.
        classes: of the detector, by label.
        path: weights of fpnkit.
    Returns:
        What was kept and what is new. Classes are the same when their names are, but for capitals.
    Raises:
        CheckpointError: damaged weights, or of another model.
    """
    source, card = load_weights(path)
    theirs = {name.casefold(): label for label, name in enumerate(card.classes)}
    pairs = {label: theirs[name.casefold()] for label, name in enumerate(classes) if name.casefold() in theirs}
    own, state = detector.state_dict(), source.state_dict()
    heads = [name for name, module in detector.named_modules() if isinstance(module, FastRCNNHead)]
    for head, (layer, rows), part in product(heads, (("scores", 1), ("deltas", 4)), ("weight", "bias")):
        key = f"{head}.{layer}.{part}"
        state[key] = _remapped(own[key], state[key], pairs, rows)
    fill(detector, state, path)
    known = set(pairs.values())
    return Taken(
        path,
        kept=tuple(classes[label] for label in pairs),
        new=tuple(name for label, name in enumerate(classes) if label not in pairs),
        dropped=tuple(name for label, name in enumerate(card.classes) if label not in known),
    )


def _remapped(own: Tensor, theirs: Tensor, pairs: dict[int, int], rows: int) -> Tensor:
    """Our rows, with theirs where a class is the same; scores have the background's row behind the classes'."""
    made = own.clone()
    if rows == 1:
        made[-1] = theirs[-1]
    for ours, other in pairs.items():
        made[ours * rows : (ours + 1) * rows] = theirs[other * rows : (other + 1) * rows]
    return made
