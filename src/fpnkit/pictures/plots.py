"""Pictures of how good a detector is."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..errors import ConfigError
from ..files import write_bytes
from .annotate import COMMENT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN_THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.9)


def draw_precision_recall(path: Path, precision: np.ndarray, classes: Sequence[str]) -> None:
    """Precision over recall: one curve an IoU threshold, and one a class at IoU 0.5 where there are several.

    Args:
        path: a PNG, replaced whole.
        precision: (10 thresholds 0.50..0.95, 101 recall points, classes), -1 where undefined.
        classes: names, by label.
    """
    figure = new_figure(6 if len(classes) == 1 else 12, 4.6, layout="constrained")
    all_axes = figure.subplots(1, 1 if len(classes) == 1 else 2, squeeze=False)[0]
    recall = np.linspace(0, 1, precision.shape[1])
    defined = np.where(precision < 0, np.nan, precision)
    with np.errstate(all="ignore"):
        means = np.array([_mean_over_classes(each) for each in defined])
    for threshold in SHOWN_THRESHOLDS:
        curve = means[round((threshold - 0.5) / 0.05)]
        all_axes[0].plot(recall, curve, label=f"IoU {threshold:.2f}: AP {100 * np.nanmean(curve):.1f}")
    all_axes[0].set_title("all classes" if len(classes) > 1 else classes[0])
    if len(classes) > 1:
        _draw_classes(all_axes[1], recall, defined[0], classes)
    for axes in all_axes:
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    write_figure(path, figure)


def draw_confusion(path: Path, counts: np.ndarray, classes: Sequence[str]) -> None:
    """What is taken for what, as shares of each row's objects.

    Args:
        path: a PNG, replaced whole.
        counts: of `confusion`, (C + 1, C + 1).
        classes: names, by label.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names, side = [*classes, "nothing"], 3.2 + 0.45 * min(len(classes), 40)
    figure = new_figure(side + 0.8, side, layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 20:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, str(count) if count else "", ha="center", va="center", fontsize=8, color=colour)
    if len(classes) <= 80:
        size = 9 if len(classes) <= 20 else 5
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=size)
        axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set(xlabel="found, at score 0.5", ylabel="annotated", title="objects and what covers them at IoU 0.5")
    write_figure(path, figure)


def write_picture(path: Path, image: Image.Image) -> None:
    """Write a picture as JPEG, replaced whole, marked as drawn here."""
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=90, comment=COMMENT)
    write_bytes(path, encoded.getvalue())


def require_matplotlib() -> None:
    """
    Raises:
        ConfigError: it is not installed; better said before the work than after it.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("drawing needs matplotlib, which is not installed: pip install 'fpnkit[train]'")


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """An empty matplotlib figure of so many inches.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), **options)


def write_figure(path: Path, figure: Figure, *, dpi: int = 110) -> None:
    """Write a matplotlib figure as PNG, or as JPEG when the file is called so, replaced whole."""
    encoded = io.BytesIO()
    if path.suffix == ".jpg":
        settings = {"quality": 92, "subsampling": 0, "comment": COMMENT}
        figure.savefig(encoded, format="jpg", dpi=dpi, pil_kwargs=settings)
    else:
        figure.savefig(encoded, format="png", dpi=dpi)
    write_bytes(path, encoded.getvalue())


def _draw_classes(
    axes: Axes, recall: np.ndarray, precision: np.ndarray, classes: Sequence[str], most: int = 12
) -> None:
    scores = [np.nanmean(curve) if np.isfinite(curve).any() else -1.0 for curve in precision.T]
    for label in np.argsort(scores)[::-1][:most]:
        axes.plot(recall, precision[:, label], label=f"{classes[label]}: {100 * scores[label]:.1f}")
    axes.set_title("classes at IoU 0.50" + (f", the best {most}" if len(classes) > most else ""))


def _mean_over_classes(curves: np.ndarray) -> np.ndarray:
    defined = curves[:, np.isfinite(curves).any(axis=0)]
    return defined.mean(axis=1) if defined.size else np.zeros(len(curves))
