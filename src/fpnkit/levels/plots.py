"""Pictures of a pyramid at work: where each level sees objects, and which level reads objects of which size."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..inference.engines import LevelView
from ..inference.predictor import Result
from ..pictures.annotate import INK, annotate, level_colour
from ..pictures.plots import new_figure, write_figure
from .view import Eq1Step, PyramidView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAINT, CARD_COLOUR = "#9aa4ad", "#1d242b"
DPI = 120
CARD, NARROWEST, WIDEST = 560, 0.64, 2.2
"""Longer side of a card in pixels, and its aspect ratios; photographs beyond them are centred on one."""
HEADER, CAPTION, GAP, LEAST_WIDTH = 118, 56, 26, 1000

LEVELS_LEGEND = (
    "Glow: how sure the RPN is that an object of the level's size is there; full colour is 1.\n"
    "White, to scale and where the glow is strongest: a cell of the map (filled) and the anchors that stand on it."
)
SIZES_LEGEND = (
    "A dot is a detection; the higher in its lane, the surer. Filled: the sizes that eq. 1 gives to the level.\n"
    "A dot beside the filled part was read as a smaller or larger RoI, before its box was refined."
)


def draw_levels(path: Path, view: PyramidView) -> None:
    """The detections, and the objectness of each level over the photograph.

    Args:
        path: a JPEG, replaced whole.
        view: of one photograph.
    Raises:
        ConfigError: matplotlib is not installed.
    """
    aspect = min(max(view.network_wh[0] / view.network_wh[1], NARROWEST), WIDEST)
    figure, cards = _lay_out(1 + len(view.levels), CARD * min(1.0, aspect), CARD / max(1.0, aspect))
    scale = CARD / max(view.network_wh)
    drawn = (max(1, round(view.network_wh[0] * scale)), max(1, round(view.network_wh[1] * scale)))
    photo = Image.fromarray(view.result.image).resize(drawn, Image.Resampling.LANCZOS)
    _draw_photo(cards[0], view, photo)
    for card, level in zip(cards[1:], view.levels, strict=True):
        _draw_level(card, view, level, photo)
    write_figure(path, figure, dpi=DPI)


def draw_object_sizes(
    path: Path, sizes: np.ndarray, levels: np.ndarray, scores: np.ndarray, steps: list[Eq1Step]
) -> None:
    """Level against size of the detections of one photograph or many, with the steps of eq. 1.

    Args:
        path: a JPEG, replaced whole.
        sizes: (K,) sqrt(w h) in pixels of the network; K may be 0.
        levels: (K,) k of the level that read each.
        scores: (K,) in 0..1.
        steps: of the detector.
    Raises:
        ConfigError: matplotlib is not installed.
    """
    width, height = 1280, HEADER + 110 + 150 * len(steps)
    figure = new_figure(width / DPI, height / DPI, facecolor=INK)
    _write_header(figure, "Which level reads objects of which size", SIZES_LEGEND)
    axes = figure.add_axes((0.16, 80 / height, 0.81, 150 * len(steps) / height), facecolor=CARD_COLOUR)
    sizes = np.maximum(sizes, 1.0)
    borders = [step.low for step in steps if 0 < step.low < math.inf]
    bounds = (min([14.0, *borders, *sizes.tolist()]) / 1.2, max([800.0, *borders, *sizes.tolist()]) * 1.2)
    lanes = {step.number: lane for lane, step in enumerate(steps)}
    for step in steps:
        _draw_lane(axes, step, lanes[step.number], bounds, int((levels == step.number).sum()))
    places = np.array([float(lanes[k]) for k in levels.tolist()]) + 0.08 + 0.84 * scores
    colours = [level_colour(k) for k in levels.tolist()]
    axes.scatter(sizes, places, s=40, c=colours, edgecolors=INK, linewidths=0.8, zorder=3)
    if not len(sizes):
        axes.text(0.5, 0.5, "nothing found", transform=axes.transAxes, color=FAINT, fontsize=15, ha="center")
    _scale_axes(axes, bounds, borders, len(steps))
    write_figure(path, figure, dpi=DPI)


def _draw_photo(card: Axes, view: PyramidView, photo: Image.Image) -> None:
    result = view.result
    scale = [photo.width / result.size_wh[0], photo.height / result.size_wh[1]] * 2
    boxes = (result.boxes_xyxy * np.array(scale)).tolist()
    _show(card, view, _annotated(photo, boxes, result))
    count, (width, height) = len(result), view.network_wh
    found = f"{count} object{'s' * (count != 1)}" if count else "nothing found"
    _caption(card, "photo", "white", f"{found} · {width} x {height} px", "boxes in the colour of their level")


def _annotated(photo: Image.Image, boxes: list[list[float]], result: Result) -> Image.Image:
    scores, label_ids, levels = result.scores.tolist(), result.label_ids.tolist(), result.levels.tolist()
    return annotate(photo, boxes, result.labels, scores, label_ids=label_ids, levels=levels)


def _draw_level(card: Axes, view: PyramidView, level: LevelView, photo: Image.Image) -> None:
    from matplotlib.patches import Rectangle

    colour = level_colour(level.number)
    _show(card, view, _glowing(photo, view.heat(level, *photo.size), colour))
    cell, anchors = level.peak()
    for (left, top, right, bottom), filling in [
        (cell.tolist(), "#ffffff80"),
        *((anchor, "none") for anchor in anchors.tolist()),
    ]:
        card.add_patch(
            Rectangle((left, top), right - left, bottom - top, edgecolor="white", facecolor=filling, linewidth=1.1)
        )
    rows, columns = level.objectness.shape
    sides = " ".join(f"{side:g}" for side in level.anchor_sides)
    _caption(
        card,
        f"P{level.number}",
        colour,
        f"stride {level.stride} · {columns} x {rows} cells",
        f"anchors {sides} px · strongest {float(level.objectness.max()):.2f}",
    )


def _glowing(photo: Image.Image, heat: np.ndarray, colour: str) -> Image.Image:
    """The photograph in dark grey, lit in a colour where there is heat."""
    from matplotlib.colors import to_rgb

    grey = np.asarray(photo.convert("L"), dtype=np.float32)[..., None] / 255
    strength = heat[..., None]
    lit = np.array(to_rgb(colour), dtype=np.float32) * (0.35 + 0.65 * grey)
    return Image.fromarray(np.uint8(255 * ((1 - strength) * (0.05 + 0.4 * grey) + strength * lit)))


def _draw_lane(axes: Axes, step: Eq1Step, lane: int, bounds: tuple[float, float], count: int) -> None:
    from matplotlib.patches import Rectangle

    colour = level_colour(step.number)
    left, right = max(step.low, bounds[0]), min(step.high, bounds[1])
    if left < right:
        axes.add_patch(Rectangle((left, lane), right - left, 1, facecolor=colour, alpha=0.22))
    axes.axhline(lane, color=INK, linewidth=2)
    label: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset pixels", "va": "center"}
    axes.annotate(f"P{step.number}", (0, lane + 0.5), (-178, 4), color=colour, fontsize=21, weight="bold", **label)
    note = f"stride {step.stride}\n{count} object{'s' * (count != 1)}"
    axes.annotate(note, (0, lane + 0.5), (-122, 0), color=FAINT, fontsize=9.5, **label)


def _scale_axes(axes: Axes, bounds: tuple[float, float], borders: list[float], lanes: int) -> None:
    axes.set(xscale="log", xlim=bounds, ylim=(0, lanes), yticks=[])
    ticks = [2**power for power in range(14) if bounds[0] <= 2**power <= bounds[1]]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.tick_params(colors=FAINT, labelsize=9.5, length=0)
    axes.set_xlabel("√(width · height) of the object, pixels of the image as the network saw it", color=FAINT)
    axes.spines[:].set_visible(False)
    for border in borders:
        axes.axvline(border, color="white", linewidth=0.8, alpha=0.35, linestyle=(0, (4, 4)))
        axes.annotate(
            f"{border:.0f}",
            (border, 1),
            (0, 6),
            xycoords=("data", "axes fraction"),
            textcoords="offset pixels",
            color="white",
            fontsize=9.5,
            ha="center",
        )


def _show(card: Axes, view: PyramidView, picture: Image.Image) -> None:
    """On the card, in the network's pixels, centred."""
    (width, height), place = view.network_wh, card.get_window_extent()
    aspect = place.width / place.height
    across, down = max(width, height * aspect), max(height, width / aspect)
    card.imshow(picture, extent=(0, width, height, 0), aspect="auto", interpolation="antialiased")
    card.set(xlim=((width - across) / 2, (width + across) / 2), ylim=((height + down) / 2, (height - down) / 2))


def _lay_out(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with a header and `count` cards of this width and height in pixels."""
    across, down = width + GAP, CAPTION + height + GAP
    columns = min(range(1, count + 1), key=lambda each: _ugliness(count, each, across / down))
    sheet = (max(LEAST_WIDTH, GAP + columns * across), HEADER + -(-count // columns) * down)
    figure = new_figure(sheet[0] / DPI, sheet[1] / DPI, facecolor=INK)
    _write_header(figure, "What each level of the pyramid sees", LEVELS_LEGEND)
    cards = []
    for place in range(count):
        row, column = divmod(place, columns)
        left, bottom = GAP + column * across, sheet[1] - HEADER - (row + 1) * down + GAP
        axes = figure.add_axes((left / sheet[0], bottom / sheet[1], width / sheet[0], height / sheet[1]))
        axes.set(xticks=[], yticks=[], facecolor=CARD_COLOUR)
        axes.spines[:].set_visible(False)
        cards.append(axes)
    return figure, cards


def _ugliness(count: int, columns: int, aspect: float) -> float:
    """How far a sheet of cells is from 1.6 to 1, with a fine on empty places."""
    rows = -(-count // columns)
    return abs(math.log(columns / rows * aspect / 1.6)) + 0.3 * (rows * columns - count)


def _write_header(figure: Figure, title: str, legend: str) -> None:
    width, height = figure.get_size_inches() * DPI
    figure.text(GAP / width, 1 - 24 / height, title, color="white", fontsize=17, weight="bold", va="top")
    figure.text(GAP / width, 1 - 62 / height, legend, color=FAINT, fontsize=9.5, va="top", linespacing=1.4)


def _caption(card: Axes, name: str, colour: str, first: str, second: str) -> None:
    """Two lines beside a name, above a card."""
    above: dict[str, Any] = {"textcoords": "offset pixels", "va": "baseline"}
    head = card.annotate(
        name, (0, 1), (0, 10), xycoords="axes fraction", color=colour, fontsize=21, weight="bold", **above
    )
    for text, up, shade in ((first, 32, "white"), (second, 10, FAINT)):
        beside = (head, "axes fraction")
        card.annotate(text, (1, 1), (12, up), xycoords=beside, color=shade, fontsize=9.5, **above)
