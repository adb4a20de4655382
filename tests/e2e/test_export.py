"""fpnkit export: a folder that stands for the model, and nothing at all when it would not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import fpnkit
from fpnkit.data.images import read_image
from fpnkit.data.samples import sample_images
from fpnkit.errors import ConfigError, ExportError
from fpnkit.export import export as export_module
from fpnkit.export import parity
from fpnkit.export.export import Report, require_good
from fpnkit.export.parity import Case, Parity, compare
from fpnkit.graph.exported import Exported
from fpnkit.inference import weights_engine
from fpnkit.inference.weights_engine import describe
from fpnkit.outputs import BASE_OUTPUTS, Postprocess
from fpnkit.weights.checkpoint import load_weights, save_weights

PHOTO = sample_images()[0]


@pytest.fixture
def copied(exported, tmp_path) -> Path:
    """An export to spoil."""
    return shutil.copytree(exported, tmp_path / "copy")


def test_writes_graph_description_and_report(exported) -> None:
    assert {path.name for path in exported.iterdir()} == {"model.onnx", "fpnkit.json", "report.md", "report.json"}
    report = json.loads((exported / "report.json").read_text())
    cases = report["parity"]["cases"]
    assert len({tuple(case["shape"]) for case in cases}) == 6
    assert {case["batch"] for case in cases} == {1, 3}
    assert all(case["matched"] >= 0.995 and case["detections"] > 0 for case in cases)
    assert "333 x 517" in (exported / "report.md").read_text()


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_export_finds_what_the_weights_find(exported, person, engine) -> None:
    graph, model = fpnkit.load(exported, engine=engine), fpnkit.load(person)
    assert graph.engine.name == engine
    for ours, wanted in zip(graph.batch(sample_images()), model.batch(sample_images()), strict=True):
        assert ours.labels == wanted.labels
        assert len(ours) > 0
        np.testing.assert_allclose(ours.boxes_xyxy, wanted.boxes_xyxy, atol=0.05)
        np.testing.assert_allclose(ours.scores, wanted.scores, atol=1e-3)
        np.testing.assert_array_equal(ours.levels, wanted.levels)


def test_what_a_graph_cannot_apply_is_refused(exported) -> None:
    """Said in the library's words; the command line's are in `test_options`."""
    for refused, reason in {
        ("compiled", True): "compiled already",
        ("detections", 3): "was exported with detections=10: for detections=3 export the weights again",
        ("min_score", 0.4): "was exported with min_score=",
        ("nms_iou", 0.4): "was exported with nms_iou=0.5: for nms_iou=0.4",
        ("device", "meta"): "device=meta is for weights",
    }.items():
        with pytest.raises(ConfigError, match=reason):
            fpnkit.load(exported, **dict([refused]))
    assert fpnkit.load(exported, detections=10, device="cpu").engine.postprocess.detections == 10


def test_scales_work_with_an_export(exported, person) -> None:
    graph, model = (fpnkit.load(which, scales=(0.5, 1)) for which in (exported, person))
    np.testing.assert_allclose(graph(PHOTO).boxes_xyxy, model(PHOTO).boxes_xyxy, atol=0.05)


def test_an_export_serves_the_verbs(exported, cli, tmp_path) -> None:
    found = cli("predict", PHOTO, "--model", exported, "--engine", "onnxruntime", "--out", tmp_path)
    assert found.code == 0, found.err
    assert "engine: onnxruntime" in found.err
    assert json.loads((tmp_path / "predictions.json").read_text())[0]["detections"]
    cli("levels", PHOTO, "--model", exported, "--out", tmp_path).refuses(2, "exported graph", "weights")


def test_features_need_the_weights(exported) -> None:
    with pytest.raises(ConfigError, match="exported graph"):
        fpnkit.load(exported)(PHOTO, features=True)


def test_weights_run_in_another_engine_and_the_graph_is_kept(exported, person, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FPNKIT_CACHE", str(tmp_path))
    made: list[Exported] = []

    def write_graph(folder, detector, description) -> None:
        made.append(description)
        _copy(exported, folder)

    monkeypatch.setattr(weights_engine, "write_graph", write_graph)
    lines: list[str] = []
    for _ in range(2):
        predictor = fpnkit.load(person, engine="onnxruntime", detections=10, on_message=lines.append)
        assert len(predictor(PHOTO)) > 0
    assert len(made) == len(lines) == 1
    assert made[0].postprocess == predictor.engine.postprocess
    fpnkit.load(person, engine="onnxruntime", detections=10, nms_iou=0.4, on_message=lines.append)
    assert [each.postprocess.nms_iou for each in made] == [0.5, 0.4]  # another graph


def _copy(source: Path, target: Path) -> None:
    for path in source.iterdir():
        shutil.copy(path, target)


def test_a_changed_graph_is_refused(copied, cli, tmp_path) -> None:
    graph = copied / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    cli("predict", PHOTO, "--model", copied, "--out", tmp_path / "out").refuses(3, graph, "changed")


@pytest.mark.parametrize(
    ("spoil", "mention"),
    [
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: text.replace('"format_version": 2', '"format_version": 3'), "format 3"),
        (lambda text: text.replace('"format": "onnx"', '"format": "coffee"'), "damaged"),
        (lambda text: text.replace('"nms_iou"', '"nms_you"'), "damaged"),
        (lambda text: "[]", "damaged"),
    ],
)
def test_a_damaged_description_is_refused(copied, cli, tmp_path, spoil, mention) -> None:
    card = copied / "fpnkit.json"
    card.write_text(spoil(card.read_text()))
    cli("predict", PHOTO, "--model", copied, "--out", tmp_path / "out").refuses(3, card, mention)


def test_an_export_of_the_first_format_is_still_read(exported, copied) -> None:
    card = copied / "fpnkit.json"
    content = json.loads(card.read_text())
    del content["outputs"]
    content |= {"format_version": 1, "size": content.pop("size_hw"), **content.pop("postprocess")}
    card.write_text(json.dumps(content))
    old, new = (fpnkit.load(each, engine="onnxruntime") for each in (copied, exported))
    assert (old.engine.outputs, old.engine.postprocess) == (new.engine.outputs, new.engine.postprocess)
    assert old(PHOTO).detections() == new(PHOTO).detections() != []


def test_a_missing_graph_is_refused(copied, cli, tmp_path) -> None:
    (copied / "model.onnx").unlink()
    cli("predict", PHOTO, "--model", copied, "--out", tmp_path / "out").refuses(3, "model.onnx", "missing")


def test_a_folder_with_something_else_is_left_alone(person, cli, tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    cli("export", person, "--out", tmp_path).refuses(1, tmp_path, "no exported model")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("words", "mentions"),
    [
        (("--int8",), ("--calibrate",)),
        (("--bf16",), ("bf16", "openvino")),
        (("--format", "torch", "--resize"), ("--resize is for the formats onnx and openvino",)),
        (("--input", "float32", "--resize"), ("--resize is for", "uint8 images")),
        (("--size", "96x128", "--resize"), ("--resize is for", "any size")),
        (("--images", "photos/"), ("--images", "no --data")),
        (("--detections", 0), ("--detections must be 1 or more, got 0",)),
    ],
)
def test_what_is_not_possible_is_said_before_anything_is_done(cli, tmp_path, words, mentions) -> None:
    out = tmp_path / "out"
    cli("export", "default", "--out", out, *words).refuses(2, *mentions)
    assert not out.exists()


def test_an_export_is_not_exported_again(exported, cli, tmp_path) -> None:
    cli("export", exported, "--out", tmp_path / "again").refuses(2, "exported already")


class Fixed:
    """An engine that finds the same wherever it looks."""

    name, outputs, postprocess = "fixed", BASE_OUTPUTS, Postprocess()

    def __init__(self, *boxes: tuple[float, ...], label: int = 0) -> None:
        self.found = {
            "boxes_xyxy": np.array(boxes, dtype=np.float32).reshape(-1, 4),
            "scores": np.linspace(0.9, 0.5, len(boxes), dtype=np.float32),
            "labels": np.full(len(boxes), label),
        }

    def detect(self, images, config) -> list[dict[str, np.ndarray]]:
        return [self.found for _ in images]


@pytest.fixture(scope="module")
def description(person) -> Exported:
    detector, card = load_weights(person)
    choices = {"format": "onnx", "precision": "float32", "pixels": True, "resizes": False, "size_hw": None}
    return describe(card, detector, **choices)


def test_parity_counts_matches_on_both_sides(description) -> None:
    def matched(one: Fixed, other: Fixed) -> float:
        return compare(one, other, [read_image(PHOTO)], description).matched

    box, near, far = (0.0, 0.0, 100.0, 100.0), (0.0, 0.0, 100.0, 99.5), (0.0, 0.0, 100.0, 95.0)
    assert matched(Fixed(box, far), Fixed(box, far)) == 1
    assert matched(Fixed(box), Fixed(near)) == 1
    assert matched(Fixed(box), Fixed(far)) == 0
    assert matched(Fixed(box), Fixed(box, label=1)) == 0
    assert matched(Fixed(box, far), Fixed(box)) == pytest.approx(2 / 3)
    assert matched(Fixed(box), Fixed(box, near)) == pytest.approx(2 / 3)
    assert matched(Fixed(), Fixed()) == 1
    assert matched(Fixed(box), Fixed()) == 0
    assert matched(Fixed(), Fixed(box)) == 0


def test_a_graph_that_finds_something_else_leaves_nothing_behind(person, exported, cli, tmp_path, monkeypatch) -> None:
    """The graph of other weights stands for one that was written wrongly."""
    detector, card = load_weights(person)
    with torch.no_grad():
        for name, weight in detector.named_parameters():
            if name.endswith("deltas.weight"):
                weight += 0.05
    save_weights(tmp_path / "other.safetensors", detector, card)
    monkeypatch.setattr(export_module, "write_graph", lambda folder, *_: _copy(exported, folder))
    monkeypatch.setattr(parity, "shapes_of", lambda config: ((240, 320),))
    words = ("export", tmp_path / "other.safetensors", "--out", tmp_path / "out")
    cli(*words).refuses(1, " % of the detections match, 99.5 % are needed; nothing was written")
    assert [path.name for path in tmp_path.iterdir()] == ["other.safetensors"]


def test_too_much_lost_ap_is_an_error(description) -> None:
    parity = Parity((Case((480, 640), False, 1, 100, 100, 1.0, 0.0, 0.0, 1.0, 1.0),))
    require_good(Report(description, "openvino", parity, 0.25, 0.2496))
    with pytest.raises(ExportError, match=r"0\.06 points of AP"):
        require_good(Report(description, "openvino", parity, 0.25, 0.2494))


def test_too_few_matches_are_an_error(description) -> None:
    for matched, fails in ((0.995, False), (0.99, True)):
        report = Report(description, "openvino", Parity((Case((480, 640), False, 1, 100, 100, matched, 0, 0, 1, 1),)))
        if not fails:
            require_good(report)
        else:
            with pytest.raises(ExportError, match=r"99\.0 % of the detections match, 99\.5 % are needed"):
                require_good(report)
