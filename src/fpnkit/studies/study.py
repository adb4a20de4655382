"""Run a table: every row with every seed, once; what is done is not done again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from ..backbones.adapters import round_up
from ..data.annotated import AnnotatedImages
from ..detectors import RPN
from ..device import choose_device, machine
from ..errors import CheckpointError, ConfigError
from ..files import write_json
from ..settings import as_plain
from ..version import __version__
from ..weights import InitialWeights
from ..weights.checkpoint import load_state
from .config import StudyConfig
from .costs import measure_costs
from .report import write_report
from .row import Outside, evaluate, train
from .tables import FPN, Row, Table
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
        weights: of the backbone.
    """

    table: Table
    config: StudyConfig
    train_data: AnnotatedImages
    val_data: AnnotatedImages
    out: Path
    weights: InitialWeights


def run_study(
    study: Study,
    watcher: Watcher,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    worker_init: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Train and evaluate what is not done yet, and write the report.

    Args:
        study: table, data and folder.
        watcher: is told how it goes.
        should_stop: asked after every step and before every evaluated image.
        worker_init: called with its number in each loading process.
    Returns:
        What `results.json` holds: settings, machine, and for each row its figures a seed and its costs.
    Raises:
        ConfigError: the folder holds a study of other settings.
        Stopped: `should_stop` said so; called again, the study goes on.
    """
    _require_same_settings(study)
    jobs = [(row, seed) for seed in range(study.config.seeds) for row in study.table.rows]
    if study.table.task == "fast_rcnn":
        jobs.insert(0, (PROPOSER, 0))
    open_jobs = [job for job in jobs if not _result_path(study, *job).exists()]
    watcher.on_total(len(open_jobs) * study.config.steps, len(open_jobs) * len(study.val_data.records))
    outside = Outside(
        on_step=watcher.on_step, on_images=watcher.on_image, should_stop=should_stop, worker_init=worker_init
    )
    for row, seed in open_jobs:
        _run_row(study, row, seed, watcher, outside)
    results = _results(study)
    write_json(study.out / "results.json", results)
    write_report(study.out, study.table, results)
    return results


def _run_row(study: Study, row: Row, seed: int, watcher: Watcher, outside: Outside) -> None:
    label = f"{row.key}: {row.label}, seed {seed}"
    watcher.on_row(label)
    torch.manual_seed(seed)
    task = _task(study, row)
    seconds = train(task, study.config, study.train_data, seed, _state_path(study, row, seed), outside)
    began = time.monotonic()
    metrics = evaluate(task, study.config, study.val_data, outside)
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
    task = "rpn" if row is PROPOSER else study.table.task
    proposer = _proposer(study) if task == "fast_rcnn" else None
    spec = study.config.spec(task, row.pyramid)
    return make_task(spec, len(study.train_data.classes), weights=study.weights, proposer=proposer)


def _proposer(study: Study) -> RPN:
    """The trained RPN of the FPN row, which does not learn any further."""
    detector, state_path = _task(study, PROPOSER).detector, _state_path(study, PROPOSER, 0)
    if state_path.exists():
        detector.load_state_dict(load_state(state_path)["detector"])
    assert isinstance(detector, RPN)
    return detector.to(choose_device(study.config.device)).eval().requires_grad_(False)


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
        "machine": {"fpnkit": __version__, **machine()},
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
                    "another: out=FOLDER"
                )
    else:
        write_json(path, wanted)


def _settings(study: Study) -> dict[str, Any]:
    settings = as_plain(study.config)
    settings |= settings.pop("optim")
    for free in ("device", "workers", "seeds"):  # a study may go on elsewhere, and grow
        settings.pop(free)
    images = {"train_images": len(study.train_data.records), "val_images": len(study.val_data.records)}
    return {"table": study.table.name, "classes": list(study.train_data.classes), **images, **settings}


def _result_path(study: Study, row: Row, seed: int) -> Path:
    return study.out / "rows" / f"{row.key}-seed{seed}.json"


def _state_path(study: Study, row: Row, seed: int) -> Path:
    return study.out / "rows" / f"{row.key}-seed{seed}.pt"
