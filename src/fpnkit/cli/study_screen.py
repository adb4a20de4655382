"""What `fpnkit study` shows in a terminal."""

from __future__ import annotations

from .terminal import Screen, console, percent


class StudyScreen(Screen):
    """Progress over all rows of a study with ETA; plain lines where there is no terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._training = self._progress.add_task("training", total=None, note="")
        self._evaluating = self._progress.add_task("evaluating", total=None, note="")

    def on_total(self, steps: int, images: int) -> None:
        """What is left to do."""
        self._progress.update(self._training, total=steps)
        self._progress.update(self._evaluating, total=images)

    def on_row(self, label: str) -> None:
        """A row begins."""
        self._progress.update(self._training, note=label)

    def on_step(self, steps: int) -> None:
        """Training went on."""
        self._progress.advance(self._training, steps)

    def on_image(self, images: int) -> None:
        """Evaluation went on."""
        self._progress.advance(self._evaluating, images)

    def on_result(self, label: str, metrics: dict[str, float]) -> None:
        """A row is done."""
        names = ("AP", "AP50", "proposals/AR_100", "proposals/AR_1000")
        shown = "  ".join(f"{name} {percent(metrics[name])}" for name in names if name in metrics)
        console.print(f"{label}: {shown}", soft_wrap=True)
