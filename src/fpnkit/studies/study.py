"""Run a table: every row with every seed, once; what is done is not done again."""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from ..backbones import Backbone
from ..backbones.adapters import round_up
from ..data.annotated import AnnotatedImages
from ..detectors import RPN
from ..device import choose_device
from ..errors import CheckpointError, ConfigError
from ..files import write_json
from ..pyramids import FPN
from ..version import __version__
from ..weights.checkpoint import load_state
from .config import StudyConfig
from .costs import measure_costs
from .report import write_report
from .row import Progress, evaluate, train
from .tables import Row, Table
from .tasks import Task, make_task

PROPOSER = Row(key="proposals", label="RPN on FPN, for the fixed proposals", pyramid=FPN)


class Watcher(Protocol):
    """Who wants to know how a study goes."""

    def on_total(self, steps: int, images: int) -> None: ...
    def on_row(self, label: str) -> None: ...
    def on_step(self, steps: int) -> None: ...
    def on_image(self, images: int) -> None: ...
    def on_result(self, label: str, metrics: dict[str, float]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Study:
    """A table to run in a folder.

    Attributes:
        table: its rows.
        config: what they have in common.
        train_data, val_data: of the same classes.
        out: the folder: `results.json`, `table.md`, `table.png`, and `rows/` with the results and weights of each.
        fill: gives a backbone its trained weights.
    """

    table: Table
    config: StudyConfig
    train_data: AnnotatedImages
    val_data: AnnotatedImages
    out: Path
    fill: Callable[[Backbone], None]


def run_study(study: Study, watcher: Watcher) -> dict[str, Any]:
    """Train and evaluate what is not done yet, and write the report.

    Returns:
        What `results.json` holds: settings, machine, and for each row its figures a seed and its costs.
    Raises:
        ConfigError: the folder holds a study of other settings.
        Stopped: SIGINT or SIGTERM came; called again, the study goes on.
    """
    _require_same_settings(study)
    jobs = [(row, seed) for seed in range(study.config.seeds) for row in study.table.rows]
    if study.table.task == "fast_rcnn":
        jobs.insert(0, (PROPOSER, 0))
    open_jobs = [job for job in jobs if not _result_path(study, *job).exists()]
    watcher.on_total(len(open_jobs) * study.config.steps, len(open_jobs) * len(study.val_data.records))
    for row, seed in open_jobs:
        _run_row(study, row, seed, watcher)
    results = _results(study)
    write_json(study.out / "results.json", results)
    write_report(study.out, study.table, results)
    return results


def _run_row(study: Study, row: Row, seed: int, watcher: Watcher) -> None:
    label = f"{row.key}: {row.label}, seed {seed}"
    watcher.on_row(label)
    progress = Progress(watcher.on_step, watcher.on_image)
    torch.manual_seed(seed)
    task = _task(study, row)
    seconds = train(task, study.config, study.train_data, seed, _state_path(study, row, seed), progress)
    began = time.monotonic()
    metrics = evaluate(task, study.config, study.val_data, progress)
    result = {
        "row": row.key,
        "seed": seed,
        "metrics": metrics,
        "train_seconds": round(seconds, 1),
        "evaluate_seconds": round(time.monotonic() - began, 1),
    }
    write_json(_result_path(study, row, seed), result)
    if row is not PROPOSER:
        _state_path(study, row, seed).unlink()
    watcher.on_result(label, metrics)


def _task(study: Study, row: Row) -> Task:
    classes = len(study.train_data.classes)
    if row is PROPOSER:
        return make_task("rpn", row.pyramid, study.config, classes, fill=study.fill)
    proposer = _proposer(study) if study.table.task == "fast_rcnn" else None
    return make_task(study.table.task, row.pyramid, study.config, classes, fill=study.fill, proposer=proposer)


def _proposer(study: Study) -> RPN:
    """The trained RPN of the FPN row, which does not learn any further."""
    task = make_task("rpn", PROPOSER.pyramid, study.config, len(study.train_data.classes), fill=study.fill)
    state_path = _state_path(study, PROPOSER, 0)
    if state_path.exists():
        task.detector.load_state_dict(load_state(state_path)["detector"])
    assert isinstance(task.detector, RPN)
    return task.detector.to(choose_device(study.config.device)).eval().requires_grad_(False)


def _results(study: Study) -> dict[str, Any]:
    rows = {
        row.key: [json.loads(_result_path(study, row, seed).read_text()) for seed in range(study.config.seeds)]
        for row in study.table.rows
    }
    costs_path = study.out / "rows" / "costs.json"
    costs = json.loads(costs_path.read_text()) if costs_path.exists() else {}
    if not rows.keys() <= costs.keys():  # all together, since only times of one run can be compared
        side = round_up(study.config.side, 32)
        costs = measure_costs({row.key: _task(study, row) for row in study.table.rows}, side)
        write_json(costs_path, costs)
    return {
        "study": study.table.name,
        "settings": _settings(study),
        "machine": {
            "fpnkit": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "processor": _processor(),
        },
        "rows": rows,
        "costs": {key: costs[key] for key in rows},
    }


def _require_same_settings(study: Study) -> None:
    path = study.out / "settings.json"
    wanted = json.loads(json.dumps(_settings(study)))
    if path.exists():
        try:
            made_with = json.loads(path.read_text())
        except ValueError as error:
            raise CheckpointError(f"{path}: damaged: {error}") from None
        for name, value in wanted.items():
            there = made_with.get(name)
            if there != value:
                raise ConfigError(
                    f"{study.out} holds a study with {name} {there!r}, not {value!r}: go on with the same, or pass "
                    "another --out"
                )
    else:
        write_json(path, wanted)


def _settings(study: Study) -> dict[str, Any]:
    settings = dataclasses.asdict(study.config)
    for free in ("device", "workers", "seeds"):  # a study may go on elsewhere, and grow
        settings.pop(free)
    images = {"train_images": len(study.train_data.records), "val_images": len(study.val_data.records)}
    return {"table": study.table.name, "classes": list(study.train_data.classes), **images, **settings}


def _result_path(study: Study, row: Row, seed: int) -> Path:
    return study.out / "rows" / f"{row.key}-seed{seed}.json"


def _state_path(study: Study, row: Row, seed: int) -> Path:
    return study.out / "rows" / f"{row.key}-seed{seed}.pt"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # on Linux; elsewhere the standard library knows the name
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
