"""--detections and --max-pixels, wherever images are read and objects found."""

import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch

import fpnkit
from fpnkit import zoo
from fpnkit.data.samples import FOLDER
from fpnkit.errors import DataError
from fpnkit.export import export as export_module
from fpnkit.weights.checkpoint import ModelCard, save_weights

CLASSES = ("square", "disc", "person")


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    """A tiny detector of three classes with random weights, that finds hundreds of objects in any image."""
    torch.manual_seed(0)
    base = zoo.preset("faster_rcnn_lite0_fpn")
    spec = replace(
        base,
        backbone=replace(base.backbone, name="test_resnet", frozen_stages=0),
        pyramid=replace(base.pyramid, name="single_map", channels=16),
        roi=replace(base.roi, hidden=32),
        preprocess=replace(base.preprocess, short_side=96, long_side=128),
        postprocess=replace(base.postprocess, nms_iou=0.9),
    )
    detector = zoo.build(spec, 3)
    for layer in (detector.rpn.objectness, detector.roi.scores, detector.roi.deltas):
        torch.nn.init.normal_(layer.weight, std=0.3)  # no two scores are the same
    path = tmp_path_factory.mktemp("random") / "random.safetensors"
    save_weights(path, detector, ModelCard.of_spec(spec, CLASSES))
    return path


@pytest.fixture
def evaluated(random_weights, coco, cli, tmp_path, read_json):
    """Options -> figures, and the number of detections in each image."""

    def run(*options):
        words = ("evaluate", random_weights, "--data", coco.json, "--out", tmp_path / "out", "--device", "cpu")
        outcome = cli(*words, *options)
        assert outcome.code == 0, outcome.err
        found = Counter(each["image_id"] for each in read_json(tmp_path / "out" / "detections.json"))
        return read_json(tmp_path / "out" / "metrics.json"), sorted(found.values())

    return run


@pytest.fixture
def predicted(random_weights, photo, cli, tmp_path, read_json):
    """Options -> detections in a photograph."""

    def run(*options):
        words = ("predict", photo, "--model", random_weights, "--min-score", 0, "--out", tmp_path, "--device", "cpu")
        outcome = cli(*words, *options)
        assert outcome.code == 0, outcome.err
        return read_json(tmp_path / "predictions.json")[0]["detections"]

    return run


def test_a_network_gives_as_many_detections_as_asked_for(predicted):
    own, few, many = (predicted(*options) for options in ((), ("--detections", 3), ("--detections", 200)))
    assert 3 < len(own) <= 100 < len(many) <= 200
    assert few == own[:3]


def test_an_evaluation_scores_as_many_detections_as_asked_for(evaluated):
    figures, counts = evaluated()
    assert (3 < min(counts) <= max(counts) <= 100, "AR_100" in figures) == (True, True)
    assert evaluated("--detections", 3)[1] == [3, 3]
    figures, counts = evaluated("--detections", 200)
    assert 100 < max(counts) <= 200
    assert "AR_200" in figures


def test_a_graph_has_the_number_of_detections_inside(exported, person, cli, tmp_path, read_json):
    """It was exported with --detections 10."""

    def found(model, *options):
        words = ("predict", FOLDER / "astronaut.jpg", "--model", model, "--min-score", 0, "--out", tmp_path)
        outcome = cli(*words, "--device", "cpu", *options)
        assert outcome.code == 0, outcome.err
        return read_json(tmp_path / "predictions.json")[0]["detections"]

    graph, network = found(exported), found(person, "--detections", 10)
    assert len(graph) == len(network) == 10 < len(found(person))
    for ours, wanted in zip(graph, network, strict=True):
        assert ours["score"] == pytest.approx(wanted["score"], abs=1e-3)
    cases = read_json(exported / "report.json")["parity"]["cases"]
    assert max(case["found"] / case["batch"] for case in cases) == 10


REFUSED = "is more than {} pixels, refused as a decompression bomb: a higher --max-pixels takes it"


def test_predict_refuses_images_above_the_limit(random_weights, photo, cli, tmp_path):
    words, large = ("--model", random_weights, "--out", tmp_path / "out", "--max-pixels"), FOLDER / "astronaut.jpg"
    cli("predict", photo, *words, 64 * 48 - 1).refuses(3, photo, "64 x 48 " + REFUSED.format("3,071"))
    assert cli("predict", photo, *words, 64 * 48).code == 0
    partly = cli("predict", photo, large, *words, 64 * 48)
    assert partly.code == 4
    assert f"skipped: {large}: 512 x 512 {REFUSED.format('3,072')}" in partly.err


def test_levels_refuses_images_above_the_limit(random_weights, photo, cli, tmp_path):
    words = ("levels", photo, "--model", random_weights, "--out", tmp_path / "out", "--max-pixels", 3071)
    cli(*words).refuses(3, photo, "64 x 48 " + REFUSED.format("3,071"))


def test_evaluate_leaves_out_images_above_the_limit(random_weights, coco, cli, tmp_path):
    shutil.copy(FOLDER / "astronaut.jpg", coco.images / "2.png")
    coco.content["images"][1] |= {"width": 512, "height": 512}
    words = ("evaluate", random_weights, "--data", coco.write().json, "--out", tmp_path / "out", "--max-pixels")
    reason = "512 x 512 " + REFUSED.format("9,216")
    cli(*words, 96 * 96, "--strict").refuses(3, "2.png", reason)
    ended = cli(*words, 96 * 96)
    assert ended.code == 0
    assert ended.err == f"left out: {coco.images / '2.png'}: image 2: {reason}\n"
    cli(*words, 96 * 96 - 1).refuses(3, REFUSED.format("9,215"), "none of the 2 images can be used")


def test_export_refuses_images_above_the_limit_before_the_graph_is_made(
    random_weights, coco, cli, tmp_path, monkeypatch
):
    monkeypatch.setattr(export_module, "write_graph", lambda *given: pytest.fail("worked in vain"))
    words = ("export", random_weights, "--out", tmp_path / "out", "--max-pixels", 96 * 96 - 1)
    reason = "96 x 96 " + REFUSED.format("9,215")
    cli(*words, "--calibrate", coco.images).refuses(3, "1.png", reason)
    cli(*words, "--data", coco.json).refuses(3, reason)
    assert not (tmp_path / "out").exists()


def test_prediction_in_python_has_the_same_limits(random_weights, photo):
    assert len(fpnkit.load(random_weights, detections=7)(photo, min_score=0)) == 7
    with pytest.raises(DataError, match=r"64 x 48 is more than 3,071 pixels.*: a higher max_pixels takes it"):
        fpnkit.load(random_weights, max_pixels=3071)(photo)
