"""How fpnkit talks in a terminal."""

from __future__ import annotations

from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from .wording import in_options

# Without markup: names of files and classes are printed as they are, whatever they hold.
console = Console(highlight=False, markup=False, emoji=False)
errors = Console(stderr=True, highlight=False, markup=False, emoji=False)

SHOWN_PROBLEMS, SHOWN_ROWS = 5, 20


class _Note(ProgressColumn):
    """Free text behind the bar, when a task carries any."""

    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get("note", "")))


def progress_bar() -> Progress:
    """A bar with count, time and ETA; on a log file it stays silent."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        _Note(),
        console=errors,
        disable=not errors.is_terminal,
    )


def tell(line: str) -> None:
    """A line beside the results, on standard error."""
    errors.print(in_options(line), soft_wrap=True)


def warn_of_problems(dataset: Any) -> None:
    """Name the records that were left out."""
    for problem in dataset.problems[:SHOWN_PROBLEMS]:
        errors.print(f"left out: {in_options(str(problem))}", style="yellow", soft_wrap=True)
    if len(dataset.problems) > SHOWN_PROBLEMS:
        errors.print(f"left out: {len(dataset.problems) - SHOWN_PROBLEMS} more records", style="yellow")


class Screen:
    """A progress bar that is shown within `with`."""

    def __init__(self) -> None:
        self._progress = progress_bar()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()


def percent(value: float) -> str:
    """COCO's -1 says that there is nothing to find."""
    return "-" if value < 0 else f"{100 * value:.1f}"
