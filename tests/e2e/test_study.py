"""`fpnkit study`: the paper's tables, run on small data from the command line."""

import json
import os
import signal
import warnings

import pytest
import torch
from PIL import Image

from fpnkit.data.loader import BatchLoader
from fpnkit.studies import STUDIES, row
from fpnkit.studies.report import write_report
from fpnkit.training.optimize import Optimizer

pytest.importorskip("faster_coco_eval")

SMALL = ("--budget", 8, "--lr", 5e-3, "--side", 96, "--channels", 16, "--backbone", "resnet18", "--batch-size", 4)
MACHINE = ("--precision", "float32", "--workers", 0, "--device", "cpu")


@pytest.fixture(scope="module")
def study(shapes):
    """The words of a study on the shapes."""
    train, val = shapes
    data = ("--data", train.json, "--images", train.images, "--val", val.json, "--val-images", val.images)
    return lambda name, out, *more: ("study", name, *data, *SMALL, *MACHINE, "--seeds", 1, "--out", out, *more)


def result_files(out) -> dict:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (out / "rows").glob("*.json")}


def metrics(out) -> dict:
    return {path.stem: json.loads(path.read_text())["metrics"] for path in (out / "rows").glob("*-seed*.json")}


@pytest.mark.parametrize("name", ["table1", "table2", pytest.param("necks", marks=pytest.mark.slow)])
def test_every_study_runs_to_its_table_and_picture(name, study, cli, tmp_path, read_json):
    out = tmp_path / name
    outcome = cli(*study(name, out))
    assert outcome.code == 0, outcome.err
    table, results = STUDIES[name], read_json(out / "results.json")
    assert list(results["rows"]) == [each.key for each in table.rows]
    text = (out / "table.md").read_text()
    assert text in outcome.out
    for each in table.rows:
        (run,) = results["rows"][each.key]
        assert set(table.metrics) <= set(run["metrics"])
        line = next(line for line in text.splitlines() if line.startswith(f"| {each.key} | {each.label} |"))
        assert all(f"{value:.1f} / **" in line for value in each.paper.values())
        cost = results["costs"][each.key]
        assert min(cost["parameters"], cost["pyramid_parameters"], cost["gmacs"], cost["ms"]) > 0
        assert (cost["anchors"] > 0) == (table.task != "fast_rcnn")
    with Image.open(out / "table.png") as picture:
        assert min(picture.size) > 200
    assert not list(out.glob("rows/[!p]*.pt"))


def test_every_row_sees_the_same_images_in_the_same_order(study, cli, tmp_path, monkeypatch):
    seen: list[list[int]] = []
    batches = BatchLoader.__iter__

    def note(self):
        for batch in batches(self):
            if self.batch_sampler.shuffle:
                seen.append(batch[1].seeds.tolist())  # one an image and epoch
            yield batch

    monkeypatch.setattr(BatchLoader, "__iter__", note)
    assert cli(*study("table3", tmp_path / "out", "--budget", 4)).code == 0
    rows = [seen[start : start + 4] for start in (0, 4, 8)]
    assert len(seen) == 12
    assert rows[0] == rows[1] == rows[2]
    assert len({seed for batch in rows[0][:3] for seed in batch}) == 12  # the first epoch: every image once
    assert len({tuple(batch) for batch in rows[0]}) == 4


def test_what_is_done_is_not_done_again_and_more_seeds_are_added(study, cli, tmp_path, read_json):
    out = tmp_path / "out"
    assert cli(*study("table3", out)).code == 0
    before = result_files(out)
    assert cli(*study("table3", out)).code == 0
    assert result_files(out) == before
    assert cli(*study("table3", out, "--seeds", 2)).code == 0
    assert before.items() <= result_files(out).items()
    assert [len(runs) for runs in read_json(out / "results.json")["rows"].values()] == [2, 2, 2]
    first, second = (metrics(out)[f"c-seed{seed}"] for seed in (0, 1))
    assert first != second


def test_rows_can_be_chosen_and_added(study, cli, tmp_path, read_json):
    out = tmp_path / "out"
    cli(*study("table3", out, "--rows", "b", "d")).refuses(2, "table3 has no row 'd': its rows are a, b, c")
    assert cli(*study("table3", out, "--rows", "b", "--budget", 2)).code == 0
    assert list(read_json(out / "results.json")["rows"]) == ["b"]
    before = result_files(out)
    assert cli(*study("table3", out, "--rows", "c", "b", "--budget", 2)).code == 0
    results = read_json(out / "results.json")
    assert list(results["rows"]) == list(results["costs"]) == ["b", "c"]
    assert before["b-seed0.json"] == result_files(out)["b-seed0.json"]


def test_stopped_and_resumed_it_gives_the_same_figures(study, cli, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert cli(*study("table3", whole)).code == 0
    assert all(figures["AP50"] > 0 for name, figures in metrics(whole).items() if name[0] == "c")
    step = Optimizer.step

    def stop_after(self, done, parts):
        if done == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, done, parts)

    monkeypatch.setattr(Optimizer, "step", stop_after)
    stops = 0
    while (outcome := cli(*study("table3", parts))).code == 4:
        assert "the same command goes on" in outcome.out
        stops += 1
        assert stops < 20
    assert stops == 3
    assert outcome.code == 0
    assert metrics(parts) == metrics(whole)


def test_after_a_crash_it_goes_on_from_the_last_checkpoint(study, cli, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert cli(*study("table3", whole, "--budget", 4)).code == 0
    monkeypatch.setattr(row, "CHECKPOINT_SECONDS", -1)
    step, seen = Optimizer.step, []

    def crash_once(self, done, parts):
        seen.append(done)
        if seen == [0, 1]:
            raise MemoryError("a crash")
        return step(self, done, parts)

    monkeypatch.setattr(Optimizer, "step", crash_once)
    assert cli(*study("table3", parts, "--budget", 4)).code == 1
    assert cli(*study("table3", parts, "--budget", 4)).code == 0
    assert seen == [0, 1, *range(1, 4), *range(4), *range(4)]
    assert metrics(parts) == metrics(whole)


def test_a_folder_of_another_study_is_left_alone(study, cli, tmp_path):
    out = tmp_path / "out"
    assert cli(*study("table3", out)).code == 0
    before = result_files(out)
    cli(*study("table3", out, "--budget", 9)).refuses(2, "holds a study with steps 8, not 9")
    cli(*study("necks", out)).refuses(2, "holds a study with table 'table3', not 'necks'")
    cli(*study("table3", out, "--classes", "disc")).refuses(2, "classes ['square', 'disc'], not ['disc']")
    assert result_files(out) == before
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").touch()
    cli(*study("table3", tmp_path / "else")).refuses(2, "holds something that is no study")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--budget", 0), "steps must be 1 or more, got 0"),
        (("--seeds", 0), "seeds must be 1 or more, got 0"),
        (("--side", 0), "side must be 1 or more, got 0"),
        (("--channels", 0), "channels must be 1 or more, got 0"),
        (("--lr", -1), "lr must be above 0, got -1.0"),
        (("--workers", -1), "workers must be 0 or more, got -1"),
        (("--backbone", "resnet_18"), "timm has no model named 'resnet_18'"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(words, message, study, cli, tmp_path):
    cli(*study("table1", tmp_path / "out", *words)).refuses(2, message)
    assert not (tmp_path / "out").exists()


def results_of(table, values) -> dict:
    """What a study leaves of two seeds: `values` gives both figures of a row by its place."""
    made = {
        each.key: [{"metrics": dict.fromkeys(table.metrics, value), "train_seconds": 10.0} for value in values(place)]
        for place, each in enumerate(table.rows)
    }
    cost = dict.fromkeys(
        ("anchors", "parameters", "pyramid_parameters", "gmacs", "pyramid_gmacs", "ms", "pyramid_ms"), 1.0
    )
    settings = dict.fromkeys(("train_images", "val_images", "steps", "batch_size", "channels", "lr"), 1)
    return {
        "rows": made,
        "costs": {each.key: cost for each in table.rows},
        "settings": {**settings, "side": 64, "classes": ["person"], "backbone": "resnet18", "precision": "float32"},
        "machine": {"torch": torch.__version__, "threads": "1", "CPU": "one"},
    }


def test_the_table_gives_means_and_half_the_range(tmp_path):
    table = STUDIES["table3"]
    write_report(tmp_path, table, results_of(table, lambda place: (0.1 * place, 0.1 * place + 0.03)))
    text = (tmp_path / "table.md").read_text()
    lines = text.splitlines()
    assert "| a | C4 alone | 53.1 / **1.5** ± 1.5 | 31.6 / **1.5** ± 1.5 |" in next(x for x in lines if "C4" in x)
    assert "56.9 / **21.5** ± 1.5 | 33.9 / **21.5** ± 1.5" in next(x for x in lines if "| FPN |" in x)
    assert "Zero in every row" not in text


@pytest.mark.parametrize("name", ["table3", "necks"])
@pytest.mark.parametrize("whole_only", [False, True])
def test_figures_of_zero_are_said_to_be_zero_and_drawn_without_a_warning(name, whole_only, tmp_path):
    table = STUDIES[name]
    whole = next(place for place, each in enumerate(table.rows) if each.label == "FPN")
    others = 0.2 if whole_only else 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(tmp_path, table, results_of(table, lambda place: (0.0,) * 2 if place == whole else (others,) * 2))
    said = f"Zero in every row and seed: {', '.join(table.metrics.values())}." in (tmp_path / "table.md").read_text()
    assert said is not whole_only
    with Image.open(tmp_path / "table.png") as picture:
        assert max(picture.size) < 4000
