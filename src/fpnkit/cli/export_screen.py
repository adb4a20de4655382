"""What `fpnkit export` shows in a terminal."""

from __future__ import annotations

from rich.progress import TaskID

from .terminal import Screen


class ExportScreen(Screen):
    """Progress over the stages of an export."""

    def __init__(self) -> None:
        super().__init__()
        self._stage: TaskID | None = None

    def on_stage(self, name: str, steps: int | None) -> None:
        """Finish the stage before and show this one."""
        if self._stage is not None:
            self._progress.remove_task(self._stage)
        self._stage = self._progress.add_task(name, total=steps, note="")

    def on_step(self) -> None:
        """A step of the stage is done."""
        if self._stage is not None:
            self._progress.advance(self._stage)
