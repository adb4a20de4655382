"""A study's figures beside the paper's: one table, one picture."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np

from ..backbones.adapters import round_up
from ..files import write_bytes
from ..pictures.plots import new_figure, write_figure
from .tables import Row, Table

PAPER_COLOUR, OWN_COLOUR = "#b8c1d1", "#f28482"


def write_report(out: Path, table: Table, results: dict[str, Any]) -> None:
    """Write `table.md` and `table.png` into a folder."""
    figures = f"{_markdown(table, results)}{_all_zero(table, results)}"
    text = f"# {table.title}\n\n{figures}\n{_costs(table, results)}\n{_facts(results)}"
    write_bytes(out / "table.md", text.encode())
    _draw(out / "table.png", table, results)


def values(results: dict[str, Any], row: Row, metric: str) -> list[float]:
    """A figure of each seed, in percent."""
    return [100 * run["metrics"][metric] for run in results["rows"][row.key]]


def _markdown(table: Table, results: dict[str, Any]) -> str:
    """Paper / ours, with half of the range of the seeds."""
    in_paper = any(row.paper for row in table.rows)
    lines = [
        "| | system | " + " | ".join(table.metrics.values()) + " |",
        "|---|---|" + "---|" * len(table.metrics),
    ]
    for row in table.rows:
        cells = []
        for metric in table.metrics:
            ours = values(results, row, metric)
            spread = (max(ours) - min(ours)) / 2
            own = f"**{statistics.mean(ours):.1f}** ± {spread:.1f}"
            cells.append(f"{row.paper[metric]:.1f} / {own}" if row.paper else own)
        lines.append(f"| {row.key} | {row.label} | " + " | ".join(cells) + " |")
    legend = "The paper's figure / **ours**" if in_paper else "Mean"
    seeds = len(next(iter(results["rows"].values())))
    return "\n".join(lines) + f"\n\n{legend}, ± half the range over {seeds} seeds; percent.\n"


def _all_zero(table: Table, results: dict[str, Any]) -> str:
    """A line that says so where a figure is zero in every row, so that rows cannot be compared by it."""
    names = [
        name
        for metric, name in table.metrics.items()
        if all(value <= 0 for row in table.rows for value in values(results, row, metric))
    ]
    if not names:
        return ""
    return f"\nZero in every row and seed: {', '.join(names)}. Nothing can be compared by that: train for more steps.\n"


COSTS = {
    "anchors": ("anchors, k", ".1f"),
    "parameters": ("parameters, M", ".2f"),
    "pyramid_parameters": ("of the pyramid", ".3f"),
    "gmacs": ("GMAC", ".2f"),
    "pyramid_gmacs": ("of the pyramid", ".2f"),
    "ms": ("ms", ".1f"),
    "pyramid_ms": ("of the pyramid", ".1f"),
}
"""Name in `measure_costs` -> heading, format."""


def cost_headings() -> list[str]:
    """What `cost_cells` gives."""
    return [heading for heading, _ in COSTS.values()]


def cost_cells(cost: dict[str, float]) -> list[str]:
    """The costs of one system as cells of a table."""
    return [f"{cost[name]:{form}}" for name, (_, form) in COSTS.items()]


def _costs(table: Table, results: dict[str, Any]) -> str:
    headings = ["", "system", *cost_headings(), "training, s"]
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for row in table.rows:
        seconds = statistics.mean(run["train_seconds"] for run in results["rows"][row.key])
        lines.append(
            f"| {' | '.join([row.key, row.label, *cost_cells(results['costs'][row.key]), f'{seconds:.0f}'])} |"
        )
    side = round_up(results["settings"]["side"], 32)
    note = (
        f"GMAC and milliseconds: backbone, pyramid and RPN head where there is one, on one {side} x {side} image, "
        "float32, CPU, median of interleaved rounds; training: mean of the seeds."
    )
    return "\n".join(lines) + f"\n\n{note}\n"


def _facts(results: dict[str, Any]) -> str:
    settings, machine = results["settings"], results["machine"]
    classes = settings["classes"]
    named = ", ".join(classes) if len(classes) < 6 else f"{len(classes)} classes"
    return (
        f"{settings['train_images']} training and {settings['val_images']} validation images, {named}; "
        f"{settings['backbone']}, d = {settings['channels']}, {settings['steps']} steps of {settings['batch_size']} "
        f"images of {settings['side']} pixels, peak learning rate {settings['lr']:g}, {settings['precision']}. "
        f"PyTorch {machine['torch']}, {machine['threads']} threads, {machine['CPU']}.\n"
    )


def _draw(path: Path, table: Table, results: dict[str, Any]) -> None:
    """Bars as long as each system's share of the FPN's figure: budgets set the figures, shares can be compared."""
    shown = list(table.metrics)[:5]
    in_paper = any(row.paper for row in table.rows)
    figure = new_figure(3.0 + 2.4 * len(shown), 1.9 + 0.62 * len(table.rows), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True):
        _bars(axes, table, results, metric)
    figure.axes[0].set_yticks(range(len(table.rows)), [f"{row.label}  ({row.key})" for row in table.rows])
    figure.axes[0].invert_yaxis()
    who = "grey: the paper, red: ours, dots: seeds. " if in_paper else "Dots: seeds. "
    figure.suptitle(f"{table.title}\n{who}Bars: share of {_whole(table).label}; numbers: percent", fontsize=11)
    write_figure(path, figure)


def _bars(axes: Any, table: Table, results: dict[str, Any], metric: str) -> None:
    in_paper = any(row.paper for row in table.rows)
    height = 0.36 if in_paper else 0.6
    whole_row = _whole(table)
    whole = statistics.mean(values(results, whole_row, metric))
    for place, row in enumerate(table.rows):
        ours, own_place = np.array(values(results, row, metric)), place + (height / 2 if in_paper else 0)
        if row.paper:
            _bar(axes, place - height / 2, row.paper[metric], whole_row.paper[metric], height, PAPER_COLOUR)
        _bar(axes, own_place, float(ours.mean()), whole, height, OWN_COLOUR)
        if whole > 0:
            axes.plot(ours / whole, [own_place] * len(ours), ".", color="black", markersize=4)
    axes.set_title(table.metrics[metric], fontsize=10)
    axes.set_xlim(0, 1.05 * max(1.0, axes.get_xlim()[1]))
    axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.spines[["top", "right"]].set_visible(False)


def _whole(table: Table) -> Row:
    """The row that counts as 100 percent."""
    return next((row for row in table.rows if row.label == "FPN"), table.rows[0])


def _bar(axes: Any, place: float, value: float, whole: float, height: float, colour: str) -> None:
    """A bar of value / whole with the value written on it; of length 0 where `whole` is 0 and there is no share."""
    axes.barh(place, value / whole if whole > 0 else 0.0, height, color=colour)
    axes.annotate(f"{value:.1f}", (0, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
