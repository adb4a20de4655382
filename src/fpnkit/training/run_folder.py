"""What a training run leaves behind for people and programs to read."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.annotated import AnnotatedImages
from ..device import machine
from ..evaluation.confusion import confusion
from ..files import replaced_whole, write_json
from ..pictures.grids import draw_batch, draw_predictions
from ..pictures.plots import draw_confusion, draw_precision_recall, write_figure
from ..structures import PixelBatch, Targets
from ..version import __version__
from ..weights.checkpoint import save_state

if TYPE_CHECKING:
    from ..evaluation.scores import Evaluation


class RunFolder:
    """A run's files.

        config.json            the model, the recipe as it was given, the length that was planned, the classes
        environment.json       the command, versions and machine
        metrics.csv            one row a logged step: losses, learning rate; one row an evaluation: metrics
        curves.png             both as a picture
        batch.jpg              the first batch as the network sees it, with its boxes
        precision_recall.png, confusion.png, samples.jpg
                               of the last evaluation: curves, what is taken for what, predictions beside the truth
        events.out.tfevents.*  the figures for TensorBoard
        weights/best, last     .safetensors
        state/last.pt          what --resume needs; state/step-N.pt the ones before, where more are kept

    Args:
        path: the folder; nothing is written before `open`.
        keep: training states that are kept.
    """

    LOG_EVERY = 10

    def __init__(self, path: Path, *, keep: int = 1) -> None:
        self.path = path
        self.keep = keep
        self.best = path / "weights" / "best.safetensors"
        self.last = path / "weights" / "last.safetensors"
        self.state = path / "state" / "last.pt"
        self._csv = path / "metrics.csv"

    @property
    def holds_run(self) -> bool:
        """Whether there is a checkpoint that a new run would replace."""
        return any(each.exists() for each in (self.state, self.last, self.best))

    def open(self, config: Mapping[str, Any], command: Sequence[str], *, step: int, epoch: int) -> None:
        """Begin to log, or go on.

        Args:
            config: the content of `config.json`.
            command: what was called, where it was a command.
            step, epoch: how many are done; what was logged later is dropped, so that nothing is logged twice.
        """
        from torch.utils.tensorboard import SummaryWriter

        for left in self.path.rglob(".writing-*"):  # by a process that was killed
            left.unlink(missing_ok=True)
        write_json(self.path / "environment.json", {"command": list(command), **machine()})
        write_json(self.path / "config.json", {"fpnkit": __version__, **config})
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

    def save_state(self, step: int, state: dict[str, Any]) -> None:
        """Save a training state as the last one; of those before, `keep - 1` stay.

        Raises:
            CheckpointError: it cannot be written; the last one stays.
        """
        save_state(self.state, state)
        if self.keep > 1:
            numbered = self.state.with_name(f"step-{step:08d}.pt")
            numbered.unlink(missing_ok=True)
            os.link(self.state, numbered)
        for old in sorted(self.state.parent.glob("step-*.pt"))[: -self.keep]:
            old.unlink(missing_ok=True)

    def draw_batch(self, batch: PixelBatch, targets: Targets, classes: Sequence[str]) -> None:
        """The images of a batch with their boxes, as `batch.jpg`."""
        draw_batch(self.path / "batch.jpg", batch, targets, classes)

    def draw_evaluation(self, result: Evaluation, data: AnnotatedImages) -> None:
        """Pictures of the last evaluation."""
        draw_precision_recall(self.path / "precision_recall.png", result.precision, data.classes)
        draw_confusion(self.path / "confusion.png", confusion(result.detections, data), data.classes)
        draw_predictions(self.path / "samples.jpg", result.detections, data)

    def draw_curves(self) -> None:
        """Losses and average precision over steps, as `curves.png`."""
        from matplotlib.figure import Figure

        rows = self.rows()
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        loss_axes, ap_axes = figure.subplots(1, 2)
        for name in [key for key in (rows[0] if rows else {}) if key.startswith("loss/")]:
            points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
            (line,) = loss_axes.plot(*zip(*_smoothed(points), strict=True), label=name[5:], linewidth=1.4)
            held_out = [(int(row["step"]), float(row[f"val/{name}"])) for row in rows if row.get(f"val/{name}")]
            if held_out:
                style = {"linestyle": ":", "marker": ".", "color": line.get_color(), "linewidth": 1.2}
                loss_axes.plot(*zip(*held_out, strict=True), **style)
        for name in ("AP", "AP50", "AP_small", "AP_medium", "AP_large"):
            points = [(int(row["step"]), 100 * float(row[f"val/{name}"])) for row in rows if row.get(f"val/{name}")]
            if points:
                ap_axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name, linewidth=1.4)
        for axes, title in ((loss_axes, "loss (points: validation)"), (ap_axes, "validation, percent")):
            axes.set(title=title, xlabel="step")
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            if axes.lines:
                axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
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


class SilentFolder(RunFolder):
    """Reads the run and writes nothing: for all processes but the main one."""

    def open(self, config: Mapping[str, Any], command: Sequence[str], *, step: int, epoch: int) -> None:
        """See `RunFolder`."""

    def close(self) -> None:
        """See `RunFolder`."""

    def add_losses(self, step: int, losses: dict[str, float], rate: float) -> None:
        """See `RunFolder`."""

    def add_metrics(self, step: int, epoch: int, metrics: dict[str, float]) -> None:
        """See `RunFolder`."""

    def draw_batch(self, batch: PixelBatch, targets: Targets, classes: Sequence[str]) -> None:
        """See `RunFolder`."""

    def draw_evaluation(self, result: Evaluation, data: AnnotatedImages) -> None:
        """See `RunFolder`."""

    def draw_curves(self) -> None:
        """See `RunFolder`."""


def _smoothed(points: list[tuple[int, float]], share: float = 0.9) -> list[tuple[int, float]]:
    smooth, out = points[0][1], []
    for step, value in points:
        smooth = share * smooth + (1 - share) * value
        out.append((step, smooth))
    return out
