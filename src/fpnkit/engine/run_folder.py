"""What a training run leaves behind for people and programs to read."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..version import __version__
from .checkpoint import replaced_whole, write_json
from .plots import write_figure


class RunFolder:
    """A run's files.

        config.json            the resolved recipe and classes
        metrics.csv            one row a logged step: losses, learning rate; one row an evaluation: metrics
        curves.png             both as a picture
        events.out.tfevents.*  the same for TensorBoard
        weights/best, last     .safetensors
        state/last.pt          what --resume needs

    Args:
        path: the folder; nothing is written before `open`.
    """

    LOG_EVERY = 10

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "weights" / "best.safetensors"
        self.last = path / "weights" / "last.safetensors"
        self.state = path / "state" / "last.pt"
        self._csv = path / "metrics.csv"

    @property
    def holds_run(self) -> bool:
        """Whether there is a checkpoint that a new run would replace."""
        return any(each.exists() for each in (self.state, self.last, self.best))

    def open(self, config: dict[str, Any], classes: Sequence[str], *, step: int, epoch: int) -> None:
        """Begin to log, or go on.

        Args:
            config: the resolved recipe.
            classes: names, by label.
            step, epoch: how many are done; what was logged later is dropped, so that nothing is logged twice.
        """
        from torch.utils.tensorboard import SummaryWriter

        write_json(self.path / "config.json", {"fpnkit": __version__, "classes": list(classes), "train": config})
        rows = [row for row in self.rows() if int(row["step"]) <= step and int(row.get("epoch") or 0) <= epoch]
        self._write(rows if step else [])
        self._board = SummaryWriter(str(self.path), purge_step=step + 1 if step else None)

    def close(self) -> None:
        """Let TensorBoard's file go."""
        self._board.close()

    def add_losses(self, step: int, losses: dict[str, float], rate: float) -> None:
        """Log a step, every `LOG_EVERY`th."""
        if step % self.LOG_EVERY == 0 or step == 1:
            self._append({"step": step, **{f"loss/{name}": value for name, value in losses.items()}, "lr": rate})

    def add_metrics(self, step: int, epoch: int, metrics: dict[str, float]) -> None:
        """Log an evaluation."""
        self._append({"step": step, "epoch": epoch, **{f"val/{name}": value for name, value in metrics.items()}})

    def rows(self) -> list[dict[str, str]]:
        """Everything logged so far, oldest first."""
        if not self._csv.exists():
            return []
        with self._csv.open(newline="") as file:
            return list(csv.DictReader(file))

    def draw_curves(self) -> None:
        """Losses and average precision over steps, as `curves.png`."""
        from matplotlib.figure import Figure

        rows = self.rows()
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        loss_axes, ap_axes = figure.subplots(1, 2)
        for name in [key for key in (rows[0] if rows else {}) if key.startswith("loss/")]:
            points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
            loss_axes.plot(*zip(*_smoothed(points), strict=True), label=name[5:], linewidth=1.4)
        for name in ("AP", "AP50", "AP_small", "AP_medium", "AP_large"):
            points = [(int(row["step"]), 100 * float(row[f"val/{name}"])) for row in rows if row.get(f"val/{name}")]
            if points:
                ap_axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name, linewidth=1.4)
        for axes, title in ((loss_axes, "training loss"), (ap_axes, "validation, percent")):
            axes.set(title=title, xlabel="step")
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            if axes.lines:
                axes.legend(frameon=False)
        write_figure(self.path / "curves.png", figure)

    def _append(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            if name not in ("step", "epoch"):
                self._board.add_scalar(name, value, row["step"])
        known = self._columns()
        if set(row) <= set(known):
            with self._csv.open("a", newline="") as file:
                csv.DictWriter(file, known).writerow(row)
        else:
            self._write([*self.rows(), row])

    def _columns(self) -> list[str]:
        if not self._csv.exists():
            return []
        with self._csv.open(newline="") as file:
            return next(csv.reader(file), [])

    def _write(self, rows: list[dict[str, Any]]) -> None:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with replaced_whole(self._csv) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)


def _smoothed(points: list[tuple[int, float]], share: float = 0.9) -> list[tuple[int, float]]:
    smooth, out = points[0][1], []
    for step, value in points:
        smooth = share * smooth + (1 - share) * value
        out.append((step, smooth))
    return out
