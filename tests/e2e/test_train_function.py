"""`fpnkit.train`: a whole training from Python."""

import json
import time

import pytest
import torch
from shapes import draw_shapes

import fpnkit
from fpnkit.data.annotated import selected
from fpnkit.data.read import read_data
from fpnkit.errors import ConfigError
from fpnkit.training import TrainConfig, Watcher, choose, prepare
from fpnkit.weights import load_weights, read_card

pytest.importorskip("faster_coco_eval")

SHORT = {"steps": 4, "batch_size": 2, "crop": 64, "workers": 0, "precision": "float32", "val_losses": 0}
LITE = "faster_rcnn_lite0_fpn"


class Notes(Watcher):
    def __init__(self) -> None:
        self.lines, self.evaluations = [], []

    def on_note(self, line: str) -> None:
        self.lines.append(line)

    def on_evaluation(self, epoch: int, metrics: dict[str, float]) -> None:
        self.evaluations.append(metrics)


@pytest.fixture(scope="module")
def paths(shapes):
    return shapes[0].json, shapes[1].json


def test_by_default_coco80_is_fine_tuned(paths, tmp_path):
    notes = Notes()
    run = fpnkit.train(paths[0], tmp_path / "run", val=paths[1], watcher=notes, **SHORT)
    assert (run.finished, run.steps) == (True, 4)
    assert notes.lines[0].startswith("fine-tunes the shipped coco80; weights=WHAT starts from something else")
    assert "new: square, disc; dropped: person" in notes.lines[1]
    assert "12 images, 2 classes, 4 steps" in notes.lines[2]
    assert run.best_ap == max(metrics["AP"] for metrics in notes.evaluations)
    predictor = run.predictor()
    assert predictor.classes == ("square", "disc")
    assert set(predictor(paths[1].parent / "images" / "1.png", min_score=0.02).labels) <= {"square", "disc"}
    network, card = load_weights(run.folder / "weights" / "last.safetensors")
    shipped, _ = load_weights(fpnkit.weights.find_weights("coco80"))
    assert card.spec == read_card(fpnkit.weights.find_weights("coco80")).spec
    frozen = "backbone.body.conv_stem.weight"  # the first stages stay as they were
    name = frozen if frozen in network.state_dict() else next(iter(network.state_dict()))
    torch.testing.assert_close(network.state_dict()[name], shipped.state_dict()[name])


def test_data_may_be_read_already_and_have_chosen_classes(paths, tmp_path):
    data, val = (selected(read_data(path), ("disc",)) for path in paths)
    run = fpnkit.train(data, tmp_path / "run", val=val, model=LITE, **SHORT)
    assert run.predictor().classes == ("disc",)
    with pytest.raises(ConfigError, match="pass val=DATA"):
        fpnkit.train(data, tmp_path / "other", model=LITE, **SHORT)


def test_more_detections_reach_evaluation(paths, tmp_path):
    """Random weights find as many as they may."""
    found, image = {}, paths[1].parent / "images" / "1.png"
    for detections in (7, 120):
        notes, settings = Notes(), {"model.postprocess.detections": detections, "model.postprocess.min_score": 0}
        out = tmp_path / str(detections)
        fpnkit.train(paths[0], out, val=paths[1], model=LITE, watcher=notes, **SHORT, **settings)
        assert read_card(out / "weights" / "last.safetensors").spec.postprocess.detections == detections
        assert f"AR_{max(100, detections)}" in notes.evaluations[-1]  # COCO's figures are of 100, or more
        found[detections] = len(fpnkit.load(out)(image, min_score=0).boxes_xyxy)
    assert found[7] == 7
    assert found[120] > 100


def test_the_limit_of_pixels_is_a_setting(paths, tmp_path):
    with pytest.raises(fpnkit.errors.DataError, match="pixels"):
        fpnkit.train(paths[0], tmp_path / "run", val=paths[1], model=LITE, **SHORT, max_pixels=95 * 95)


@pytest.mark.slow
def test_it_ends_within_the_minutes(paths, tmp_path):
    settings = {name: value for name, value in SHORT.items() if name != "steps"}
    notes, began = Notes(), time.monotonic()
    run = fpnkit.train(paths[0], tmp_path / "run", val=paths[1], model=LITE, minutes=0.7, watcher=notes, **settings)
    assert run.finished
    assert time.monotonic() - began < 60 * 0.7 * 1.5  # other processes take turns on the cores of a test
    assert run.steps >= 10
    (plan,) = [line for line in notes.lines if "steps (" in line]
    assert f"{run.steps} steps (" in plan
    assert ", about " in plan
    assert len(notes.evaluations) == int(plan.split(" epochs), ")[1].split()[0])


def test_minutes_and_steps_exclude_each_other(paths, tmp_path):
    with pytest.raises(ConfigError, match="minutes=N excludes epochs=N and steps=N"):
        fpnkit.train(paths[0], tmp_path / "run", val=paths[1], model=LITE, minutes=1, **SHORT)


def test_a_dry_run_changes_nothing(paths, tmp_path):
    data, val = map(read_data, paths)
    config = choose(settings=SHORT).config

    def trained(name: str, *, dry: bool) -> bytes:
        trainer = prepare(choose(LITE, config=config), data, val, tmp_path / name)
        if dry:
            measured = trainer.dry_run(3)
            assert not (tmp_path / name).exists()
            assert measured.step_seconds > 0
            assert measured.evaluation_seconds > 0
            assert measured.trainable <= measured.parameters
        assert trainer.run()
        return (tmp_path / name / "weights" / "last.safetensors").read_bytes()

    assert trained("dry", dry=True) == trained("plain", dry=False)


def test_threads_may_train_and_nothing_catches_signals(paths, tmp_path, monkeypatch):
    def refuse(*given):
        raise AssertionError("the library catches no signals")

    monkeypatch.setattr("signal.signal", refuse)
    monkeypatch.setattr("sys.argv", ["something", "else"])
    run = fpnkit.train(paths[0], tmp_path / "run", val=paths[1], model=LITE, **SHORT)
    assert json.loads((run.folder / "environment.json").read_text())["command"] == []


def test_a_recipe_from_python_counts(paths, tmp_path):
    config = TrainConfig(steps=1, workers=0, ema=0.0)
    run = fpnkit.train(paths[0], tmp_path / "run", val=paths[1], model=LITE, config=config, batch_size=2, crop=64)
    assert run.steps == 1
    train = json.loads((run.folder / "config.json").read_text())["train"]
    assert (train["steps"], train["ema"], train["optim"]["batch_size"]) == (1, 0.0, 2)


@pytest.mark.slow
def test_twenty_images_are_enough_for_a_first_command(tmp_path):
    """With no other option: the planned 400 steps from coco80."""
    train, val = draw_shapes(tmp_path / "train", 20), draw_shapes(tmp_path / "val", 6, seed=1)
    notes = Notes()
    run = fpnkit.train(train.json, tmp_path / "run", val=val.json, watcher=notes, crop=96, batch_size=4, workers=0)
    assert run.steps == 400
    assert 8 <= len(notes.evaluations) <= 12
    assert run.best_ap > 0.8
