"""The figures are pycocotools' own, on any usable annotation file."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch

from fpnkit import zoo
from fpnkit.data.coco import read_coco
from fpnkit.data.preprocess import Preprocess
from fpnkit.evaluation.evaluate import METRICS, score
from fpnkit.inference import predictor as predict
from fpnkit.structures import Detections, Proposals

COCO = pytest.importorskip("pycocotools.coco").COCO
COCOeval = pytest.importorskip("pycocotools.cocoeval").COCOeval

KEYS = {
    *METRICS,
    "proposals/AR_100",
    "proposals/AR_1000",
    "proposals/AR_1000_small",
    "proposals/AR_1000_medium",
    "proposals/AR_1000_large",
}
MODEL = "faster_rcnn_lite0_fpn"


def pycocotools_figures(annotations, detections) -> list[float]:
    """What pycocotools says of two files, without any of our code."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        judged = COCOeval(truth, truth.loadRes(str(detections)), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return [float(value) for value in judged.stats]


def pycocotools_recall(annotations, proposals: list, most: int, size: str = "all") -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        judged = COCOeval(truth, truth.loadRes([dict(each) for each in proposals]), "bbox")
        judged.params.useCats, judged.params.maxDets = 0, [1, 10, most]
        judged.evaluate()
        judged.accumulate()
    recall = judged.eval["recall"][:, :, ["all", "small", "medium", "large"].index(size), -1]
    return float(recall[recall > -1].mean())


def guesses(content: dict, *, noise: float = 2.0, seed: int = 0) -> list[dict]:
    """Ground truth moved by a few pixels, some missing, some invented, some of the wrong class."""
    random = np.random.default_rng(seed)
    found = []
    for each in content["annotations"]:
        if random.random() < 0.15:
            continue
        box = np.array(each["bbox"]) + random.normal(0, noise, 4)
        category = each["category_id"] if random.random() < 0.85 else 3 - each["category_id"]
        found.append((each["image_id"], category, box))
        if random.random() < 0.4:
            found.append((each["image_id"], category, np.array([*random.uniform(0, 60, 2), 30, 30])))
    return [
        {
            "image_id": image,
            "category_id": category,
            "bbox": [*box[:2].tolist(), *box[2:].clip(1).tolist()],
            "score": float(random.random()),
        }
        for image, category, box in found
    ]


@pytest.fixture
def mixed(shapes):
    """Twelve images of shapes with objects of all three sizes and a crowd among them."""
    train, _ = shapes
    content = json.loads(train.json.read_text())
    for each, area in zip(content["annotations"], [500, 2000, 10_000] * 8, strict=True):
        each["area"] = area
    content["annotations"][4]["iscrowd"] = 1
    return content


@pytest.fixture
def written(mixed, shapes, tmp_path):
    path = tmp_path / "annotations.json"

    def write() -> tuple:
        path.write_text(json.dumps(mixed))
        return path, read_coco(path, shapes[0].images)

    return write


def test_figures_equal_pycocotools(mixed, written, tmp_path):
    annotations, dataset = written()
    detections, proposals = guesses(mixed), guesses(mixed, seed=1)
    result = score(detections, proposals, dataset)
    assert set(result.metrics) == KEYS
    assert 0.1 < result.metrics["AP"] < 0.9
    (tmp_path / "detections.json").write_text(json.dumps(result.detections))
    wanted = pycocotools_figures(annotations, tmp_path / "detections.json")
    assert [result.metrics[name] for name in METRICS] == pytest.approx(wanted, abs=1e-9)
    for most in (100, 1000):
        wanted = pycocotools_recall(annotations, proposals, most)
        assert result.metrics[f"proposals/AR_{most}"] == pytest.approx(wanted, abs=1e-9)
        assert 0.1 < wanted < 0.95
    for size in ("small", "medium", "large"):
        wanted = pycocotools_recall(annotations, proposals, 1000, size)
        assert result.metrics[f"proposals/AR_1000_{size}"] == pytest.approx(wanted, abs=1e-9)


def test_results_are_not_changed_by_scoring(mixed, written):
    _, dataset = written()
    detections = guesses(mixed)
    before = json.dumps(detections)
    assert json.dumps(score(detections, detections, dataset).detections) == before
    assert json.dumps(detections) == before


def perfect(content: dict) -> list[dict]:
    names = ("image_id", "category_id", "bbox")
    return [{**{name: each[name] for name in names}, "score": 1.0} for each in content["annotations"]]


def test_files_without_area_and_crowd_are_scored_by_the_boxes(mixed, written):
    mixed["annotations"][4]["iscrowd"] = 0
    for each in mixed["annotations"]:
        each["area"] = each["bbox"][2] * each["bbox"][3]
    _, dataset = written()
    wanted = score(guesses(mixed), [], dataset).metrics
    for place, each in enumerate(mixed["annotations"]):
        del each["iscrowd"]
        if place % 2:
            each["area"] = None
        else:
            del each["area"]
    _, dataset = written()
    assert score(guesses(mixed), [], dataset).metrics == wanted


def test_an_annotation_of_id_zero_counts(mixed, written):
    del mixed["annotations"][4]
    for number, each in enumerate(mixed["annotations"]):
        each["id"] = number
    _, dataset = written()
    assert score(perfect(mixed), [], dataset).metrics["AP"] == pytest.approx(1.0)


def test_bad_records_that_were_left_out_do_not_count(mixed, shapes, tmp_path):
    (tmp_path / "good.json").write_text(json.dumps(mixed))
    first = mixed["annotations"][0]
    bad = [{**first, "id": 900, "bbox": [1, 1, -5, 5]}, {**first, "bbox": [1, 1, 80, 80]}, {**first, "id": 900}]
    spoilt = {**mixed, "annotations": [bad[0], *mixed["annotations"], *bad[1:]]}
    (tmp_path / "spoilt.json").write_text(json.dumps(spoilt))
    good, left = (read_coco(tmp_path / name, shapes[0].images) for name in ("good.json", "spoilt.json"))
    assert [len(each.problems) for each in (good, left)] == [0, 3]
    assert score(guesses(mixed), guesses(mixed), left).metrics == score(guesses(mixed), guesses(mixed), good).metrics


def test_nothing_found_is_zero_where_there_is_something_and_undefined_elsewhere(mixed, written):
    for each in mixed["annotations"]:
        each["area"] = 500
    _, dataset = written()
    metrics = score([], [], dataset).metrics
    assert set(metrics) == KEYS
    undefined = {f"{figure}_{size}" for figure in ("AP", "AR", "proposals/AR_1000") for size in ("medium", "large")}
    assert {name for name, value in metrics.items() if value == -1} == undefined
    assert all(value == 0 for name, value in metrics.items() if name not in undefined)


@pytest.mark.parametrize("classes", [("square", "disc"), ("disc", "square"), ("disc",)])
def test_precision_is_in_the_order_of_the_classes(classes, mixed, shapes, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(mixed))
    dataset = read_coco(tmp_path / "a.json", shapes[0].images, classes=classes)
    squares = [each for each in perfect(mixed) if each["category_id"] == 1]
    result = score(squares, [], dataset)
    best = result.precision[0].mean(axis=0)
    assert best.tolist() == pytest.approx([float(name == "square") for name in classes])


class Oracle:
    """Stands in for a network: answers with the truth, moved a little, in the pixels of the batch."""

    def __init__(self, content: dict) -> None:
        self.content = content
        self.seen = 0

    def __call__(self, batch, *, proposals: int) -> list:
        answers = []
        for index in range(len(batch)):
            image = self.content["images"][self.seen]
            self.seen += 1
            found = [each for each in guesses(self.content) if each["image_id"] == image["id"]]
            x, y, width, height = torch.tensor([each["bbox"] for each in found]).reshape(-1, 4).unbind(1)
            scale = (batch.sizes[index] / batch.original_sizes[index]).flip(0).repeat(2)
            boxes = torch.stack([x, y, x + width, y + height], dim=1) * scale
            scores = torch.tensor([each["score"] for each in found])
            labels = torch.tensor([each["category_id"] - 1 for each in found], dtype=torch.int64)
            valid = torch.ones(len(found), dtype=torch.bool)
            answers.append((Proposals(boxes, scores, valid), Detections(boxes, scores, labels, labels + 2, valid)))
        return answers


@pytest.fixture
def oracle(monkeypatch, shapes):
    """The command line gets a detector of two classes that knows the twelve images of shapes."""
    detector = zoo.build(MODEL, 2)
    monkeypatch.setattr(detector, "detect_and_propose", Oracle(json.loads(shapes[0].json.read_text())))
    predictor = predict.Predictor(detector, ("square", "disc"), Preprocess(zoo.default_preprocess(MODEL)))
    monkeypatch.setattr(predict, "load", lambda *given, **named: predictor)


@pytest.mark.usefixtures("oracle")
@pytest.mark.parametrize("batch_size", [1, 5])
def test_written_figures_equal_pycocotools_on_the_written_files(batch_size, cli, shapes, tmp_path, read_json):
    data, out = shapes[0], tmp_path / "out"
    words = ("evaluate", "oracle", "--data", data.json, "--images", data.images, "--batch-size", batch_size)
    outcome = cli(*words, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    metrics = read_json(out / "metrics.json")
    assert set(metrics) == KEYS
    assert 0.1 < metrics["AP"] < 0.95
    wanted = pycocotools_figures(data.json, out / "detections.json")
    assert [metrics[name] for name in METRICS] == pytest.approx(wanted, abs=1e-9)
    assert all(set(each) == {"image_id", "category_id", "bbox", "score"} for each in read_json(out / "detections.json"))
    assert sorted(each.name for each in out.iterdir()) == ["detections.json", "metrics.json", "precision_recall.png"]


def test_untrained_model_is_evaluated_with_all_figures(cli, coco, weights, tmp_path, read_json):
    coco.content["categories"][0]["name"] = "person"
    words = ("--data", coco.write().json, "--images", coco.images, "--out", tmp_path / "out", "--device", "cpu")
    assert cli("evaluate", weights, *words).code == 0
    metrics = read_json(tmp_path / "out" / "metrics.json")
    assert set(metrics) == KEYS
    assert all(value == -1 or 0 <= value <= 1 for value in metrics.values())


@pytest.mark.usefixtures("oracle")
def test_other_classes_than_the_models_are_refused(cli, shapes, coco, tmp_path):
    data = ("--data", shapes[0].json, "--images", shapes[0].images, "--out", tmp_path / "out")
    known = "knows 2 classes (square, disc), asked for"
    cli("evaluate", "oracle", *data, "--classes", "disc").refuses(3, f"{known} 1 (disc)")
    cli("evaluate", "oracle", *data, "--classes", "disc", "square").refuses(3, f"{known} 2 (disc, square)")
    cli("evaluate", "oracle", *data, "--classes", "disk").refuses(3, "no class 'disk': did you mean 'disc'?")
    coco.content["categories"] = [{"id": 1, "name": "circle"}]
    coco.content["annotations"] = coco.content["annotations"][::2]
    data = ("--data", coco.write().json, "--images", coco.images, "--out", tmp_path / "out")
    cli("evaluate", "oracle", *data).refuses(3, coco.json, "no class 'square'")
    assert cli("evaluate", "oracle", *data, "--rename", "circle=square").code == 0  # data may lack rare classes


@pytest.mark.usefixtures("oracle")
def test_data_without_objects_is_refused(cli, coco, tmp_path):
    coco.content["annotations"] = []
    data = ("--data", coco.write().json, "--images", coco.images, "--out", tmp_path / "out")
    cli("evaluate", "oracle", *data).refuses(3, f"{coco.json}: no object of square, disc")


def test_of_several_splits_one_must_be_named(cli, coco, tmp_path):
    assert cli("convert", coco.json, "--to", "yolo", "--out", tmp_path / "yolo").code == 0
    listed = tmp_path / "yolo" / "data.yaml"
    listed.write_text(listed.read_text() + "test: images/train\n")
    asked = f"has the splits train, test: name one, {listed}:test"
    cli("evaluate", "default", "--data", listed).refuses(2, asked)
