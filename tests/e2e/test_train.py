"""Training for real: what a run leaves behind, and that it learns."""

import csv
import json

import pytest
import torch
from PIL import Image

from fpnkit.engine.checkpoint import load_state, read_card
from fpnkit.structures import ImageBatch

pytest.importorskip("faster_coco_eval")

CLASSES = ["square", "disc"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, start, training):
    """A run of 24 steps by the real command, with a loading process."""
    out = tmp_path_factory.mktemp("trained") / "run"
    process = start(*training(out, "--epochs", 8, "--evaluate-every", 4, "--workers", 1))
    stdout, stderr = process.communicate(timeout=900)
    assert (process.returncode, stderr) == (0, ""), stdout
    return out, stdout


def rows(run) -> list[dict]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_run_folder_holds_what_is_promised(trained):
    run, stdout = trained
    names = {each.relative_to(run).as_posix() for each in run.rglob("*") if each.is_file()}
    events = {name for name in names if name.startswith("events.out.tfevents.")}
    assert len(events) == 1
    weights = {"weights/best.safetensors", "weights/last.safetensors"}
    assert names - events == {"config.json", "metrics.csv", "curves.png", "state/last.pt", *weights}
    assert "2 classes, 24 steps" in stdout
    assert str(run) in stdout.splitlines()[-1]


def test_config_is_the_resolved_recipe(trained):
    config = json.loads((trained[0] / "config.json").read_text())
    assert config["classes"] == CLASSES
    assert config["train"]["epochs"] == 8
    assert config["train"]["augment"]["crop"] == 96
    assert config["train"]["lr"] == 2e-3


def test_losses_go_down_and_figures_are_logged(trained):
    logged = rows(trained[0])
    losses = {int(row["step"]): float(row["loss/total"]) for row in logged if row["loss/total"]}
    assert list(losses) == [1, 10, 20]
    assert losses[20] < 0.7 * losses[1]
    evaluated = [(int(row["step"]), row["epoch"]) for row in logged if row["val/AP"]]
    assert evaluated == [(12, "4"), (24, "8")]


def test_curves_are_a_picture(trained):
    with Image.open(trained[0] / "curves.png") as picture:
        picture.load()
        assert picture.size[0] > 300


def test_tensorboard_reads_the_same_values(trained):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(trained[0])).Reload()
    seen = {each.step: each.value for each in events.Scalars("loss/total")}
    logged = {int(row["step"]): float(row["loss/total"]) for row in rows(trained[0]) if row["loss/total"]}
    assert seen == pytest.approx(logged, rel=1e-5)
    assert [each.step for each in events.Scalars("val/AP")] == [12, 24]


def test_checkpoints_agree(trained):
    run, _ = trained
    assert read_card(run / "weights" / "last.safetensors").classes == tuple(CLASSES)
    state = load_state(run / "state" / "last.pt")
    assert (state["step"], state["epoch"]) == (24, 8)


def test_run_is_used_at_once(trained, cli, shapes, tmp_path, read_json):
    run, _ = trained
    picture = shapes[1].images / "1.png"
    words = ("--model", run, "--out", tmp_path / "found", "--min-score", 0.05, "--device", "cpu")
    assert cli("predict", picture, *words).code == 0
    found = read_json(tmp_path / "found" / "predictions.json")[0]["detections"]
    assert {each["label"] for each in found} <= set(CLASSES)
    data = ("--data", shapes[1].json, "--images", shapes[1].images, "--device", "cpu")
    assert cli("evaluate", run, *data, "--out", tmp_path / "report").code == 0
    best = max(float(row["val/AP"]) for row in rows(run) if row["val/AP"])
    assert read_json(tmp_path / "report" / "metrics.json")["AP"] == pytest.approx(best, abs=1e-6)


def test_a_folder_that_holds_a_run_is_left_alone(trained, cli, training):
    run, _ = trained
    before = {each: each.read_bytes() for each in run.rglob("*") if each.is_file()}
    cli(*training(run)).refuses(2, f"{run} holds a run already: pass --resume to go on, or another --out")
    assert {each: each.read_bytes() for each in run.rglob("*") if each.is_file()} == before


def test_resuming_a_finished_run_changes_no_weights(trained, cli, training):
    run, _ = trained
    before = (run / "weights" / "last.safetensors").read_bytes()
    outcome = cli(*training(run, "--epochs", 8, "--resume"))
    assert (outcome.code, outcome.err) == (0, "")
    assert (run / "weights" / "last.safetensors").read_bytes() == before
    assert len(rows(run)) == 5


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--lr", 1), "made with lr 0.002, not 1.0"),
        (("--epochs", 9), "made with epochs 8, not 9"),
        (("--crop", 64), "made with augment"),
        (("--backbone-weights", "timm"), "made with from_scratch True, not False"),
        (("--model", "faster_rcnn_r50_fpn"), "made with model 'faster_rcnn_lite0_fpn', not 'faster_rcnn_r50_fpn'"),
        (("--classes", "disc"), "made with classes ['square', 'disc'], not ['disc']"),
    ],
)
def test_resuming_with_another_recipe_is_refused_and_changes_nothing(options, named, trained, cli, training):
    run, _ = trained
    before = (run / "config.json").read_bytes()
    cli(*training(run, "--epochs", 8, "--resume", *options)).refuses(3, run / "state" / "last.pt", named)
    assert (run / "config.json").read_bytes() == before


def test_resuming_without_a_run_is_refused_and_makes_nothing(tmp_path, cli, training):
    cli(*training(tmp_path / "new", "--resume")).refuses(2, "nothing to resume")
    assert not (tmp_path / "new").exists()


def test_training_takes_images_of_extreme_shape(tmp_path, cli, coco, training):
    for name, size in {"1.png": (1, 3000), "2.png": (1, 1)}.items():
        Image.new("RGB", size, "red").save(coco.images / name)
    for image, (width, height) in zip(coco.content["images"], [(1, 3000), (1, 1)], strict=True):
        image.update(width=width, height=height)
    coco.content["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 3000]},
        {"id": 2, "image_id": 2, "category_id": 2, "bbox": [0, 0, 1, 1]},
    ]
    coco.write()
    data = ("--data", coco.json, "--images", coco.images, "--scale", 0.1, 0.1, "--batch-size", 2, "--epochs", 1)
    outcome = cli(*training(tmp_path / "run", *data))
    assert (outcome.code, outcome.err) == (0, "")


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_image_met_while_training_is_named(workers, tmp_path, cli, coco, training):
    path = coco.images / "2.png"
    path.write_bytes(path.read_bytes()[:300])
    data = ("--data", coco.json, "--images", coco.images, "--batch-size", 2, "--workers", workers)
    cli(*training(tmp_path / "run", *data)).refuses(3, f"{path}: damaged image")


def test_loss_that_is_not_finite_ends_the_run_and_names_the_images(tmp_path, cli, training, monkeypatch):
    def losses(self, batch: ImageBatch, targets) -> dict:
        return {"rpn_box": batch.images.sum() * torch.nan}

    monkeypatch.setattr("fpnkit.detectors.FasterRCNN.losses", losses)
    cli(*training(tmp_path / "run")).refuses(1, "step 1: the loss is not finite (rpn_box nan)", ".png", "lower --lr")
    assert not (tmp_path / "run" / "weights").exists()


def test_a_run_that_ended_before_its_first_checkpoint_can_be_started_again(tmp_path, cli, training, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("fpnkit.engine.train.Trainer._save", lambda self: 1 / 0)
        assert cli(*training(tmp_path / "run", "--epochs", 1)).code == 1
    assert len(rows(tmp_path / "run")) == 1
    assert cli(*training(tmp_path / "run", "--epochs", 1)).code == 0
    assert [row["step"] for row in rows(tmp_path / "run")] == ["1", "3"]
