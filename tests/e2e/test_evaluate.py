"""The figures are pycocotools' own, on any usable annotation file."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest
import torch

import fpnkit
from fpnkit import zoo
from fpnkit.data.coco import read_coco
from fpnkit.data.samples import sample_images
from fpnkit.detectors import Detector
from fpnkit.evaluation.scores import score
from fpnkit.inference import predictor as predict
from fpnkit.inference.torch_engine import TorchEngine
from fpnkit.outputs import BASE_OUTPUTS, OutputSpec
from fpnkit.structures import Detections, Proposals

COCO = pytest.importorskip("pycocotools.coco").COCO
COCOeval = pytest.importorskip("pycocotools.cocoeval").COCOeval

METRICS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)
"""In the order of pycocotools."""

KEYS = {
    *METRICS,
    "proposals/AR_100",
    "proposals/AR_1000",
    "proposals/AR_1000_small",
    "proposals/AR_1000_medium",
    "proposals/AR_1000_large",
}


def pycocotools_figures(annotations, detections) -> list[float]:
    """What pycocotools says of two files, without any of our code."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluated = COCOeval(truth, truth.loadRes(str(detections)), "bbox")
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    return [float(value) for value in evaluated.stats]


def pycocotools_recall(annotations, proposals: list, most: int, size: str = "all") -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluated = COCOeval(truth, truth.loadRes([dict(each) for each in proposals]), "bbox")
        evaluated.params.useCats, evaluated.params.maxDets = 0, [1, 10, most]
        evaluated.evaluate()
        evaluated.accumulate()
    recall = evaluated.eval["recall"][:, :, ["all", "small", "medium", "large"].index(size), -1]
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


class Oracle(Detector):
    """A detector that answers with the truth, moved a little, in the pixels of the batch."""

    outputs = (*BASE_OUTPUTS, OutputSpec("levels", "int64"))
    num_classes = 2

    def __init__(self, content: dict) -> None:
        super().__init__()
        self.content, self.seen, self.batches = content, 0, []

    def forward(self, images, sizes_hw):
        raise NotImplementedError

    def losses(self, batch, targets):
        raise NotImplementedError

    def detect_and_propose(self, batch, *, proposals: int = 1000) -> list:
        self.batches.append(len(batch))
        answers = []
        for index in range(len(batch)):
            image = self.content["images"][self.seen]
            self.seen += 1
            found = [each for each in guesses(self.content) if each["image_id"] == image["id"]]
            x, y, width, height = torch.tensor([each["bbox"] for each in found]).reshape(-1, 4).unbind(1)
            scale = (batch.sizes_hw[index] / batch.original_hw[index]).flip(0).repeat(2)
            boxes = torch.stack([x, y, x + width, y + height], dim=1) * scale
            scores = torch.tensor([each["score"] for each in found])
            labels = torch.tensor([each["category_id"] - 1 for each in found], dtype=torch.int64)
            valid = torch.ones(len(found), dtype=torch.bool)
            detections = Detections(boxes, scores, labels, valid, {"levels": labels + 2})
            answers.append((Proposals(boxes, scores, valid), detections))
        return answers


@pytest.fixture
def oracle(monkeypatch, shapes) -> Oracle:
    """The command line gets a detector of two classes that knows the twelve images of shapes."""
    oracle = Oracle(json.loads(shapes[0].json.read_text()))
    engine = TorchEngine(oracle, torch.device("cpu"), "float32", live=True)
    preprocess = zoo.preset("faster_rcnn_lite0_fpn").preprocess
    predictor = predict.Predictor(engine, ("square", "disc"), preprocess)
    monkeypatch.setattr(predict, "load", lambda *given, **named: predictor)
    return oracle


@pytest.mark.parametrize(("batch_size", "batches"), [(1, [1] * 12), (5, [5, 5, 2])])
def test_written_figures_equal_pycocotools_on_the_written_files(
    batch_size, batches, oracle, cli, shapes, tmp_path, read_json
):
    data, out = shapes[0], tmp_path / "out"
    words = ("evaluate", "oracle", "--data", data.json, "--images", data.images, "--batch-size", batch_size)
    outcome = cli(*words, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    metrics = read_json(out / "metrics.json")
    assert set(metrics) == KEYS
    assert 0.1 < metrics["AP"] < 0.95
    wanted = pycocotools_figures(data.json, out / "detections.json")
    assert [metrics[name] for name in METRICS] == pytest.approx(wanted, abs=1e-9)
    assert oracle.batches == batches
    names = {"image_id", "category_id", "bbox", "score", "level"}
    assert all(set(each) == names for each in read_json(out / "detections.json"))
    assert sorted(each.name for each in out.iterdir()) == [
        "detections.json",
        "images.json",
        "metrics.json",
        "precision_recall.png",
    ]


def test_the_ids_of_detections_are_listed_whatever_the_format(oracle, cli, shapes, tmp_path, read_json):
    data = shapes[0]
    assert cli("convert", data.json, "--images", data.images, "--to", "yolo", "--out", tmp_path / "yolo").code == 0
    outcome = cli("evaluate", "oracle", "--data", tmp_path / "yolo", "--out", tmp_path / "out")
    assert (outcome.code, outcome.err) == (0, "")
    with contextlib.redirect_stdout(io.StringIO()):
        listed = COCO(str(tmp_path / "out" / "images.json"))
        results = listed.loadRes(str(tmp_path / "out" / "detections.json"))
    assert [each["name"] for each in listed.loadCats(listed.getCatIds())] == ["square", "disc"]
    sizes = {(each["width"], each["height"]) for each in listed.dataset["images"]}
    assert (len(listed.dataset["images"]), sizes) == (12, {(96, 96)})
    assert len(results.getAnnIds()) == len(read_json(tmp_path / "out" / "detections.json")) > 12
    assert {each["image_id"] for each in read_json(tmp_path / "out" / "detections.json")} <= set(listed.getImgIds())


class Recording:
    """A real engine that notes how many images each pass gets."""

    def __init__(self, engine) -> None:
        self.engine, self.batches = engine, []

    def __getattr__(self, name: str):
        return getattr(self.engine, name)

    def detect_and_propose(self, images, config, *, proposals: int):
        self.batches.append(len(images))
        return self.engine.detect_and_propose(images, config, proposals=proposals)


@pytest.fixture(scope="module")
def people(person, tmp_path_factory):
    """The shipped photographs as COCO; annotated is what the weights find in each at its own size."""
    folder, predictor = tmp_path_factory.mktemp("people"), fpnkit.load(person, device="cpu")
    images, annotations = [], []
    for number, path in enumerate(sample_images(), start=1):
        result = predictor(shutil.copy(path, folder))
        width, height = result.size_wh
        images.append({"id": number, "file_name": path.name, "width": width, "height": height})
        left, top, right, bottom = result.boxes_xyxy[0].tolist()
        box = [left, top, right - left, bottom - top]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": box, "iscrowd": 0})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    (folder / "people.json").write_text(json.dumps(content))
    return folder / "people.json"


def test_batches_reach_a_graph_and_change_little(exported, people, cli, monkeypatch, tmp_path, read_json):
    graph = fpnkit.load(exported, engine="onnxruntime")
    found = {}
    for batch_size, batches in ((1, [1, 1, 1]), (2, [2, 1])):
        engine, out = Recording(graph.engine), tmp_path / str(batch_size)
        predictor = predict.Predictor(engine, graph.classes, graph.preprocess)
        monkeypatch.setattr(predict, "load", lambda *given, predictor=predictor, **named: predictor)
        words = ("evaluate", exported, "--data", people, "--batch-size", batch_size, "--workers", 2, "--out", out)
        assert cli(*words).code == 0
        assert engine.batches == batches
        found[batch_size] = read_json(out / "metrics.json"), read_json(out / "detections.json")
    (alone, one), (together, other) = found.values()
    assert alone.keys() == together.keys() == set(METRICS)
    assert alone["AP75"] == pytest.approx(together["AP75"], abs=0.02)
    assert alone["AP75"] > 0.9
    sure, same = ([each for each in every if each["score"] > 0.5] for every in (one, other))
    assert [each["image_id"] for each in sure] == [each["image_id"] for each in same]
    for each, wanted in zip(same, sure, strict=True):
        assert each["bbox"] == pytest.approx(wanted["bbox"], abs=2)
        assert each["score"] == pytest.approx(wanted["score"], abs=0.01)


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
