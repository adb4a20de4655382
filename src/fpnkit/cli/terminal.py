"""How fpnkit talks in a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

SHOWN_PROBLEMS = 5


def progress_bar() -> Progress:
    """A bar with count, time and ETA; on a log file it stays silent."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=errors,
        disable=not errors.is_terminal,
    )


def warn_of_problems(dataset: Any) -> None:
    """Name the records that were left out."""
    for problem in dataset.problems[:SHOWN_PROBLEMS]:
        errors.print(f"left out: {problem}", style="yellow")
    if len(dataset.problems) > SHOWN_PROBLEMS:
        errors.print(f"left out: {len(dataset.problems) - SHOWN_PROBLEMS} more records", style="yellow")


class TrainingScreen:
    """Progress with losses and ETA; plain lines where there is no terminal."""

    LINE_EVERY = 50

    def __init__(self, total: int, start: int) -> None:
        self._progress = progress_bar()
        self._training = self._progress.add_task("training", total=total, completed=start, note="")
        self._evaluating = self._progress.add_task("evaluating", total=1, visible=False, note="")

    def __enter__(self) -> TrainingScreen:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def on_step(self, step: int, total: int, losses: dict[str, float]) -> None:
        """Show a step's losses."""
        note = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        self._progress.update(self._training, completed=step, note=note)
        if not errors.is_terminal and step % self.LINE_EVERY == 0:
            console.print(f"step {step}/{total}  {note}")

    def on_evaluated_images(self, done: int, total: int) -> None:
        """Show how far an evaluation is."""
        self._progress.update(self._evaluating, completed=done, total=total, visible=done < total)

    def on_evaluation(self, epoch: int, metrics: dict[str, float]) -> None:
        """Show the main figures of an evaluation."""
        shown = ("AP", "AP50", "AP_small", "AP_medium", "AP_large", "proposals/AR_100")
        figures = "  ".join(f"{name} {100 * metrics[name]:.1f}" for name in shown if name in metrics)
        self._progress.console.print(f"epoch {epoch}: {figures}")
