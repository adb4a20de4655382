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
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

# Without markup: names of files and classes are printed as they are, whatever they hold.
console = Console(highlight=False, markup=False, emoji=False)
errors = Console(stderr=True, highlight=False, markup=False, emoji=False)

SHOWN_PROBLEMS, SHOWN_ROWS = 5, 20

METRIC_MEANINGS = {
    "AP": "mean over IoU 0.50..0.95",
    "AP50": "at IoU 0.50",
    "AP75": "at IoU 0.75",
    "AP_small": "objects under 32 x 32 pixels",
    "AP_medium": "32 x 32 to 96 x 96",
    "AP_large": "above 96 x 96",
    "AR_1": "recall with 1 box an image",
    "AR_10": "with 10",
    "AR_100": "with 100",
    "AR_small": "with 100, small objects",
    "AR_medium": "medium",
    "AR_large": "large",
    "proposals/AR_100": "recall of 100 RPN proposals, any class",
    "proposals/AR_1000": "of 1000",
    "proposals/AR_1000_small": "of 1000, small objects",
    "proposals/AR_1000_medium": "medium",
    "proposals/AR_1000_large": "large",
}


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
    errors.print(line, soft_wrap=True)


def warn_of_problems(dataset: Any) -> None:
    """Name the records that were left out."""
    for problem in dataset.problems[:SHOWN_PROBLEMS]:
        errors.print(f"left out: {problem}", style="yellow", soft_wrap=True)
    if len(dataset.problems) > SHOWN_PROBLEMS:
        errors.print(f"left out: {len(dataset.problems) - SHOWN_PROBLEMS} more records", style="yellow")


class _Screen:
    """A progress bar that is shown within `with`."""

    def __init__(self) -> None:
        self._progress = progress_bar()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()


class StudyScreen(_Screen):
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
        shown = "  ".join(f"{name} {_percent(metrics[name])}" for name in names if name in metrics)
        console.print(f"{label}: {shown}", soft_wrap=True)


def detections_table(found: list[tuple[str, list[dict[str, Any]]]], *, most: int = 20) -> Table:
    """Image, label, score, box and pyramid level of the strongest detections of each image."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("image", "label"):
        table.add_column(name, overflow="fold")
    for name in ("score", "box xyxy (pixels)", "size", "level"):
        table.add_column(name, justify="right")
    for name, rows in found:
        for place, row in enumerate(rows[:most]):
            left, top, right, bottom = row["box_xyxy"]
            table.add_row(
                name if place == 0 else "",
                row["label"],
                f"{row['score']:.2f}",
                f"{left:.0f} {top:.0f} {right:.0f} {bottom:.0f}",
                f"{right - left:.0f} x {bottom - top:.0f}",
                f"P{row['level']}" if "level" in row else "",
            )
        if len(rows) > most or not rows:
            table.add_row(name if not rows else "", f"{len(rows) - most} more" if rows else "nothing found")
    return table


def metrics_table(metrics: dict[str, float], images: int) -> Table:
    """COCO's figures in percent, with what each means."""
    table = Table(title=f"{images} images, percent", box=None, header_style="bold", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("meaning", style="dim")
    for name, value in metrics.items():
        table.add_row(name, _percent(value), METRIC_MEANINGS.get(name, ""))
    return table


def bench_table(bench: Any) -> Table:
    """Milliseconds by part."""
    sides, network = (" x ".join(map(str, size)) for size in (bench.size_hw, bench.network_hw))
    table = Table(
        title=f"{bench.engine}, one image of {sides}, for the network {network}; milliseconds",
        box=None,
        header_style="bold",
        title_justify="left",
    )
    table.add_column("part")
    for name in ("least", "median", "most"):
        table.add_column(name, justify="right")
    for name, cost in bench.parts.items():
        table.add_row(name, *(f"{value:.1f}" for value in (cost.minimum, cost.median, cost.maximum)))
    return table


def _percent(value: float) -> str:
    """COCO's -1 says that there is nothing to find."""
    return "-" if value < 0 else f"{100 * value:.1f}"


class ExportScreen(_Screen):
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
