"""What `fpnkit train` shows in a terminal."""

from __future__ import annotations

from rich.console import Console

from ..training.trainer import DryRun, Trainer
from ..training.watcher import Watcher
from .terminal import Screen, console, errors, percent
from .wording import in_options


class TrainingScreen(Screen, Watcher):
    """Progress with losses and the time that is left; plain lines where there is no terminal."""

    LINE_EVERY = 50

    def __init__(self) -> None:
        super().__init__()
        self._training = self._progress.add_task("training", total=None, visible=False, note="")
        self._evaluating = self._progress.add_task("evaluating", total=1, visible=False, note="")

    def on_note(self, line: str) -> None:
        """Print it."""
        self._above_bar().print(in_options(line), soft_wrap=True)

    def on_step(self, step: int, total: int, losses: dict[str, float]) -> None:
        """Show a step's losses."""
        note = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        self._progress.update(self._training, completed=step, total=total, visible=True, note=note)
        if not errors.is_terminal and step % self.LINE_EVERY == 0:
            console.print(f"step {step}/{total}  {note}", soft_wrap=True)

    def on_evaluated_images(self, done: int, total: int) -> None:
        """Show how far an evaluation is."""
        self._progress.update(self._evaluating, completed=done, total=total, visible=done < total)

    def on_evaluation(self, epoch: int, metrics: dict[str, float]) -> None:
        """Show the main figures of an evaluation."""
        shown = ("AP", "AP50", "AP_small", "AP_medium", "AP_large", "proposals/AR_100")
        figures = "  ".join(f"{name} {percent(metrics[name])}" for name in shown if name in metrics)
        self._above_bar().print(f"epoch {epoch}: {figures}", soft_wrap=True)

    def _above_bar(self) -> Console:
        return errors if errors.is_terminal else console


def print_dry_run(measured: DryRun, trainer: Trainer) -> None:
    """What a training needs."""
    console.print(f"{measured.parameters / 1e6:.1f} million parameters, {measured.trainable / 1e6:.1f} of them trained")
    console.print("  ".join(f"{name} {value:.3f}" for name, value in measured.losses.items()))
    memory = "" if measured.memory is None else f", {measured.memory / 2**30:.1f} GiB at the peak"
    console.print(f"{measured.step_seconds:.2f} s a step, {measured.evaluation_seconds:.1f} s an evaluation{memory}")
    console.print(trainer.plan(measured))
