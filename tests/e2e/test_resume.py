"""What a resumed run says where it cannot be what it would have been."""

import json
import shutil

import pytest
import torch

import fpnkit
from fpnkit.errors import CheckpointError
from fpnkit.training import Watcher
from fpnkit.weights.checkpoint import load_state, save_state

pytest.importorskip("faster_coco_eval")


class Notes(Watcher):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.lines, self.steps = [], []

    def on_note(self, line: str) -> None:
        self.lines.append(line)

    def on_step(self, step: int, total: int, losses: dict[str, float]) -> None:
        self.steps.append((step, total))

    @property
    def differences(self) -> list[str]:
        return [line for line in self.lines if line.startswith("resuming from step")]


NUMBERS = {"lr": 2e-3, "batch_size": 4, "crop": 64, "epochs": 2, "workers": 0, "precision": "float32", "val_losses": 0}


@pytest.fixture
def data(tmp_path, shapes):
    """The shapes, where they can be changed."""
    folders = tmp_path / "train", tmp_path / "val"
    for folder, coco in zip(folders, shapes, strict=True):
        shutil.copytree(coco.folder, folder)
    return [folder / "annotations.json" for folder in folders]


@pytest.fixture
def train(tmp_path, data):
    """Train in one folder: steps to stop after, keyword arguments -> the run and what its watcher was told."""

    def run(stop_after: int = 1000, **given) -> tuple[fpnkit.training.Run, Notes]:
        notes = Notes()
        given["should_stop"] = lambda: len(notes.steps) >= stop_after
        options = {"model": "faster_rcnn_lite0_fpn", "val": data[1], "device": "cpu", **NUMBERS, **given}
        return fpnkit.train(data[0], tmp_path / "run", watcher=notes, **options), notes

    return run


@pytest.fixture
def stopped(train):
    """The same, after a run that was stopped at its second step."""
    run, _ = train(stop_after=2)
    assert (run.finished, run.steps) == (False, 2)
    return train


def change(path, edit) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_nothing_is_said_where_nothing_changed(stopped):
    run, notes = stopped(resume=True)
    assert run.finished
    assert notes.differences == []
    assert notes.steps == [(3, 6), (4, 6), (5, 6), (6, 6)]


def test_other_boxes_are_told(stopped, data):
    change(data[0], lambda content: content["annotations"][0]["bbox"].__setitem__(2, 11))
    run, notes = stopped(resume=True)
    assert run.finished
    (told,) = notes.differences
    assert told == (
        "resuming from step 2: training data has changed: "
        "the weights will not be the same as those of an uninterrupted run"
    )


def test_other_validation_data_is_told(stopped, data):
    change(data[1], lambda content: content["annotations"].pop())
    (told,) = stopped(resume=True)[1].differences
    assert "validation data has changed: figures before and after are not comparable" in told


@pytest.mark.parametrize(("left", "epochs"), [(4, 6), (9, 3)])
def test_data_of_another_size_keeps_the_length(left, epochs, stopped, data):
    """One or two steps in an epoch instead of three."""
    names = {f"{number}.png" for number in range(1, left + 1)}

    def edit(content) -> None:
        content["images"] = [each for each in content["images"] if each["file_name"] in names]
        numbers = {each["id"] for each in content["images"]}
        content["annotations"] = [each for each in content["annotations"] if each["image_id"] in numbers]

    change(data[0], edit)
    run, notes = stopped(resume=True)
    assert run.finished
    assert notes.steps == [(3, 6), (4, 6), (5, 6), (6, 6)]
    assert len(notes.differences) == 1
    assert load_state(run.folder / "state" / "last.pt")["epochs"] == epochs


def test_other_threads_are_told(stopped):
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        (told,) = stopped(resume=True)[1].differences
    finally:
        torch.set_num_threads(before)
    assert f"threads was {before}, and is {before + 1}: the weights will not be the same" in told


def test_another_device_is_told(stopped, tmp_path):
    path = tmp_path / "run" / "state" / "last.pt"
    state = load_state(path)
    state["circumstances"]["device"] = "NVIDIA H100"
    save_state(path, state)
    (told,) = stopped(resume=True)[1].differences
    assert "device was NVIDIA H100, and is cpu, " in told


def test_a_state_of_an_older_fpnkit_is_refused(stopped, tmp_path):
    path = tmp_path / "run" / "state" / "last.pt"
    state = load_state(path)
    recipe = {"model": "faster_rcnn_lite0_fpn", "epochs": 2, "from_scratch": True}
    save_state(path, {"recipe": recipe, **{name: state[name] for name in ("detector", "step", "epoch")}})
    with pytest.raises(CheckpointError, match=r"state of another fpnkit .* start a new run from its weights"):
        stopped(resume=True)


def test_another_model_is_refused(stopped):
    with pytest.raises(CheckpointError, match=r"made with model\.rpn\.anchor_scale 8\.0, not 6"):
        stopped(resume=True, **{"model.rpn.anchor_scale": 6})


def test_a_planned_length_is_that_of_the_first_command(train, tmp_path):
    first, notes = train(epochs=None, minutes=2, stop_after=4)
    total = notes.steps[0][1]
    assert first.steps == 4
    assert total >= 10
    assert json.loads((tmp_path / "run" / "config.json").read_text())["length"]["steps"] == total
    again, notes = train(epochs=None, minutes=5, stop_after=2, resume=True)
    assert again.steps == 6
    assert notes.steps == [(5, total), (6, total)]
