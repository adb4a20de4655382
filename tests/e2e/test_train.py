"""Training for real: what a run leaves behind, and that it learns."""

import csv
import json

import pytest
import torch
from PIL import Image

from fpnkit.structures import ImageBatch
from fpnkit.weights.checkpoint import load_state, load_weights, read_card

pytest.importorskip("faster_coco_eval")

CLASSES = ["square", "disc"]
LITE = "faster_rcnn_lite0_fpn"


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
    texts = {"config.json", "environment.json", "metrics.csv"}
    pictures = {"batch.jpg", "curves.png", "precision_recall.png", "confusion.png", "samples.jpg"}
    assert names - events == {*texts, *pictures, "state/last.pt", *weights}
    assert "2 classes, 24 steps" in stdout
    assert str(run) in stdout.splitlines()[-1]


def test_config_is_the_resolved_recipe(trained):
    config = json.loads((trained[0] / "config.json").read_text())
    assert config["classes"] == CLASSES
    assert config["train"]["epochs"] == 8
    assert config["train"]["augment"]["crop"] == 96
    assert config["train"]["optim"]["lr"] == 2e-3
    assert config["length"] == {"steps": 24, "warmup_steps": 2, "evaluate_every": 4}
    assert config["model"]["backbone"]["name"] == "tf_efficientnet_lite0"
    assert config["weights"] == "random"


def test_losses_go_down_and_figures_are_logged(trained):
    logged = rows(trained[0])
    losses = {int(row["step"]): float(row["loss/total"]) for row in logged if row["loss/total"]}
    assert list(losses) == [1, 10, 20]
    assert losses[20] < 0.7 * losses[1]
    evaluated = [(int(row["step"]), row["epoch"]) for row in logged if row["val/AP"]]
    assert evaluated == [(12, "4"), (24, "8")]


@pytest.mark.parametrize("name", ["batch.jpg", "curves.png", "precision_recall.png", "confusion.png", "samples.jpg"])
def test_pictures_are_pictures(name, trained):
    with Image.open(trained[0] / name) as picture:
        picture.load()
        assert picture.size[0] > 300
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_validation_losses_are_logged(trained):
    held_out = [float(row["val/loss/roi_class"]) for row in rows(trained[0]) if row["val/loss/roi_class"]]
    assert len(held_out) == 2
    assert min(held_out) > 0


def test_environment_is_noted(trained):
    noted = json.loads((trained[0] / "environment.json").read_text())
    assert "train" in noted["command"]
    assert noted["torch"] == torch.__version__.partition("+")[0]


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
    cli(*training(run)).refuses(2, f"{run} holds a run already: pass --resume to go on, or --out ANOTHER")
    assert {each: each.read_bytes() for each in run.rglob("*") if each.is_file()} == before


def test_resuming_a_finished_run_changes_no_weights(trained, cli, training):
    run, _ = trained
    last = run / "weights" / "last.safetensors"
    before = last.read_bytes()
    for _ in range(2):
        outcome = cli(*training(run, "--epochs", 8, "--resume"))
        assert (outcome.code, outcome.err) == (0, "")
        assert last.read_bytes() == before
        last.unlink()  # as a run leaves it that is killed between its last state and its weights
    last.write_bytes(before)
    assert len(rows(run)) == 5


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--lr", 1), "made with --lr 0.002, not 1.0"),
        (("--epochs", 9), "made with epochs 8, not 9"),
        (("--crop", 64), "made with --crop 96, not 64"),
        (("--from", "timm"), "made with weights 'random', not 'timm'"),
        (("--model", "faster_rcnn_r50_fpn"), "made with model.backbone.name 'tf_efficientnet_lite0', not 'resnet50'"),
        (("--set", "model.rpn.anchor_scale=6"), "made with model.rpn.anchor_scale 8.0, not 6"),
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


def test_damaged_image_is_left_out_or_stops_the_run(tmp_path, cli, coco, training):
    path = coco.images / "2.png"
    path.write_bytes(path.read_bytes()[:300])
    words = training(tmp_path / "run", "--data", coco.json, "--images", coco.images, "--batch-size", 1, "--epochs", 1)
    cli(*words, "--strict").refuses(3, f"{path}: damaged image")
    outcome = cli(*words)
    assert (outcome.code, "1 images, 2 classes" in outcome.out) == (0, True)
    assert outcome.err.startswith(f"left out: {path}: image 2: damaged image")


def test_loss_that_is_not_finite_names_the_image_its_boxes_and_the_term(tmp_path, cli, training, monkeypatch):
    given = []

    def losses(self, batch: ImageBatch, targets) -> dict:
        given.append(targets)
        bad = torch.nan if len(batch) > 1 or len(given) == 3 else 1.0  # the second image of the batch
        parameter = next(each for each in self.parameters() if each.requires_grad)
        return {"rpn_box": parameter.sum() * bad, "roi_box": parameter.sum()}

    monkeypatch.setattr("fpnkit.detectors.FasterRCNN.losses", losses)
    outcome = cli(*training(tmp_path / "run"))
    outcome.refuses(1, "step 1: the loss is not finite (rpn_box nan, roi_box", ".png: rpn_box, boxes [[", "lower --lr")
    first = [round(side, 1) for side in given[2].boxes_xyxy[0, 0].tolist()]
    assert str(first)[1:-1] in outcome.err
    assert not (tmp_path / "run" / "weights").exists()


def test_recipe_fields_are_set_by_name(tmp_path, cli, training, read_json):
    run = tmp_path / "run"
    fields = ("optim.lr=0.001", "optim.schedule=step", "optim.optimizer=sgd", "ema=0.9", "freeze=backbone")
    more = ("optim.accumulate=2", "keep=2", "checkpoint_seconds=0", "val_losses=0")
    assert cli(*training(run, "--set", *fields, "--set", *more)).code == 0
    recipe = read_json(run / "config.json")["train"]
    assert (recipe["optim"]["lr"], recipe["optim"]["schedule"], recipe["ema"]) == (0.001, "step", 0.9)
    assert {each.name for each in (run / "state").iterdir()} == {"last.pt", "step-00000005.pt", "step-00000006.pt"}
    state = load_state(run / "state" / "last.pt")
    assert not torch.equal(state["ema"]["roi.scores.weight"], state["detector"]["roi.scores.weight"])
    again = cli(*training(tmp_path / "again", "--recipe", run / "config.json", "--dry-run"))
    assert again.code == 0
    cli(*training(run, "--set", "optim.rl=1")).refuses(2, "there is no field 'optim.rl': did you mean --lr?")
    cli(*training(run, "--set", "lr")).refuses(2, "--set expects FIELD=VALUE, got 'lr'")


def test_dry_run_tells_the_cost_and_writes_nothing(tmp_path, cli, training):
    outcome = cli(*training(tmp_path / "run", "--dry-run"))
    assert outcome.code == 0
    for told in (
        "million parameters",
        "s a step",
        "GiB at the peak",
        "s an evaluation",
        "6 steps (2 epochs), 2 evaluations, about",
        "rpn_box",
    ):
        assert told in outcome.out
    assert not (tmp_path / "run").exists()


def test_by_default_the_command_fine_tunes_coco80_and_says_so(tmp_path, cli, shapes):
    data = ("--data", shapes[0].json, "--val", shapes[1].json, "--out", tmp_path / "run", "--device", "cpu")
    outcome = cli("train", *data, "--crop", 64, "--batch-size", 2, "--workers", 0, "--dry-run")
    assert outcome.code == 0, outcome.err
    first, second, *_ = outcome.out.splitlines()
    assert first.startswith("fine-tunes the shipped coco80; --from WHAT starts from something else: coco80, default, ")
    assert "new: square, disc" in second
    assert "2 classes, 402 steps (67 epochs), 12 evaluations" in outcome.out


def test_models_are_put_together_by_options(tmp_path, cli, shapes, read_json):
    data = ("--data", shapes[0].json, "--val", shapes[1].json, "--device", "cpu", "--precision", "float32")
    recipe = ("--crop", 64, "--batch-size", 2, "--workers", 0, "--set", "steps=1", "val_losses=0")
    parts = ("--model", LITE, "--backbone", "resnet18", "--pyramid", "pan", "--channels", 24, "--head", "cascade")
    fields = ("--set", "model.rpn.anchor_scale=6", "model.cascade.stages=2", "model.postprocess.detections=300")
    outcome = cli("train", *data, *recipe, *parts, *fields, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "cascade_rcnn on resnet18 + pan on cpu: " in outcome.out
    spec = read_card(tmp_path / "run" / "weights" / "last.safetensors").spec
    assert (spec.backbone.name, spec.pyramid.name, spec.pyramid.channels) == ("resnet18", "pan", 24)
    assert (spec.rpn.anchor_scale, spec.cascade.stages, spec.postprocess.detections) == (6, 2, 300)
    assert read_json(tmp_path / "run" / "config.json")["model"] == spec.as_plain()
    wrong = (("--pyramid", "pam"), ("--head", "cascades"), ("--backbone", "resnet81"), ("--model", "faster_rcnn_r50"))
    for option, name in wrong:
        near = cli("train", *data, *recipe, option, name, "--out", tmp_path / "other")
        near.refuses(2, name, "did you mean")
    fits = cli("train", *data, *recipe, *parts, "--from", "coco80", "--out", tmp_path / "other")
    fits.refuses(3, "of another architecture", "start from weights of your model or of its backbone")


def test_training_ends_when_patience_does(tmp_path, cli, training):
    words = training(tmp_path / "run", "--epochs", 9, "--lr", 1e-12, "--set", "patience=2", "val_losses=0")
    assert cli(*words).code == 0
    evaluated = [row["epoch"] for row in rows(tmp_path / "run") if row.get("val/AP")]
    assert evaluated[-1] == "3"


def test_fine_tuning_keeps_classes_of_the_same_name(trained, tmp_path, cli, training, shapes):
    run, _ = trained
    words = ("--from", run, "--rename", "square=tile", "--epochs", 1, "--lr", 1e-9, "--set", "val_losses=0")
    outcome = cli(*training(tmp_path / "tuned", *words))
    assert outcome.code == 0
    assert "classes kept: disc; new: tile; dropped: square" in outcome.out
    old, _ = load_weights(run / "weights" / "best.safetensors")
    new, card = load_weights(tmp_path / "tuned" / "weights" / "last.safetensors")
    assert card.classes == ("tile", "disc")
    torch.testing.assert_close(new.roi.scores.weight[1:], old.roi.scores.weight[1:], atol=1e-6, rtol=0)
    torch.testing.assert_close(new.roi.deltas.weight[4:], old.roi.deltas.weight[4:], atol=1e-6, rtol=0)
    assert (new.roi.scores.weight[0] - old.roi.scores.weight[0]).abs().max() > 1e-3


def test_a_run_that_ended_before_its_first_checkpoint_can_be_started_again(tmp_path, cli, training, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("fpnkit.training.trainer.Trainer._save", lambda self: 1 / 0)
        assert cli(*training(tmp_path / "run", "--epochs", 1)).code == 1
    assert len(rows(tmp_path / "run")) == 1
    assert cli(*training(tmp_path / "run", "--epochs", 1)).code == 0
    assert [row["step"] for row in rows(tmp_path / "run")] == ["1", "3"]
