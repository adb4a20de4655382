"""fpnkit export: a folder that stands for the model, and nothing at all when it would not."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import fpnkit
from fpnkit.data.images import read_image
from fpnkit.data.samples import sample_images
from fpnkit.errors import ConfigError, ExportError
from fpnkit.export.parity import Case, Parity, compare
from fpnkit.inference import graph_cache as graphs
from fpnkit.structures import Detections


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """The shipped model as ONNX, by the command; not to be changed."""
    from fpnkit.cli import main

    folder = tmp_path_factory.mktemp("export") / "person"
    assert main(["export", "default", "--out", str(folder)]) == 0
    return folder


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
def test_an_export_finds_what_the_checkpoint_finds(exported, engine) -> None:
    graph, model = fpnkit.load(exported, engine=engine), fpnkit.load("default")
    assert graph.engine.name == engine
    for mine, wanted in zip(graph.batch(sample_images()), model.batch(sample_images()), strict=True):
        assert mine.labels == wanted.labels
        assert len(mine) > 0
        torch.testing.assert_close(mine.boxes_xyxy, wanted.boxes_xyxy, atol=0.05, rtol=0)
        torch.testing.assert_close(mine.scores, wanted.scores, atol=1e-3, rtol=0)
        assert torch.equal(mine.levels, wanted.levels)


def test_an_export_is_not_compiled_once_more(exported) -> None:
    with pytest.raises(ConfigError, match="compiled already"):
        fpnkit.load(exported, compiled=True)


def test_scales_work_with_an_export(exported) -> None:
    photo = sample_images()[0]
    graph, model = (fpnkit.load(which, scales=(0.5, 1)) for which in (exported, "default"))
    torch.testing.assert_close(graph(photo).boxes_xyxy, model(photo).boxes_xyxy, atol=0.05, rtol=0)


def test_an_export_serves_the_verbs(exported, cli, tmp_path) -> None:
    photo = sample_images()[0]
    found = cli("predict", photo, "--model", exported, "--engine", "onnxruntime", "--out", tmp_path)
    assert found.code == 0, found.err
    assert "engine: onnxruntime" in found.err
    assert json.loads((tmp_path / "predictions.json").read_text())[0]["detections"]
    cli("levels", photo, "--model", exported, "--out", tmp_path).refuses(2, "exported graph", "checkpoint")


def test_features_need_the_checkpoint(exported) -> None:
    with pytest.raises(ConfigError, match="exported graph"):
        fpnkit.load(exported)(sample_images()[0], features=True)


def test_weights_run_in_another_engine_and_the_graph_is_kept(exported, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FPNKIT_CACHE", str(tmp_path))
    made = []
    monkeypatch.setattr(graphs, "write_graph", lambda folder, *_: (made.append(1), _copy(exported, folder)))
    lines: list[str] = []
    for _ in range(2):
        predictor = fpnkit.load("default", engine="onnxruntime", tell=lines.append)
        assert len(predictor(sample_images()[0])) > 0
    assert len(made) == len(lines) == 1


def _copy(source: Path, target: Path) -> None:
    for path in source.iterdir():
        shutil.copy(path, target)


def test_a_changed_graph_is_refused(copied, cli, tmp_path) -> None:
    graph = copied / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    cli("predict", sample_images()[0], "--model", copied, "--out", tmp_path / "out").refuses(3, graph, "changed")


@pytest.mark.parametrize(
    ("spoil", "mention"),
    [
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: text.replace('"format_version": 1', '"format_version": 2'), "format 2"),
        (lambda text: text.replace('"format": "onnx"', '"format": "coffee"'), "damaged"),
        (lambda text: text.replace('"nms_iou"', '"nms_you"'), "damaged"),
        (lambda text: "[]", "damaged"),
    ],
)
def test_a_damaged_description_is_refused(copied, cli, tmp_path, spoil, mention) -> None:
    card = copied / "fpnkit.json"
    card.write_text(spoil(card.read_text()))
    cli("predict", sample_images()[0], "--model", copied, "--out", tmp_path / "out").refuses(3, card, mention)


def test_a_missing_graph_is_refused(copied, cli, tmp_path) -> None:
    (copied / "model.onnx").unlink()
    cli("predict", sample_images()[0], "--model", copied, "--out", tmp_path / "out").refuses(3, "model.onnx", "missing")


def test_a_folder_with_something_else_is_left_alone(cli, tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    cli("export", "default", "--out", tmp_path).refuses(1, tmp_path, "no exported model")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("words", "mentions"),
    [
        (("--int8",), ("--calibrate",)),
        (("--bf16",), ("bf16", "openvino")),
        (("--format", "torch", "--resize"), ("resizing",)),
        (("--input", "float32", "--resize"), ("resizing",)),
    ],
)
def test_what_is_not_possible_is_said_before_anything_is_done(cli, tmp_path, words, mentions) -> None:
    out = tmp_path / "out"
    cli("export", "default", "--out", out, *words).refuses(2, *mentions)
    assert not out.exists()


def test_an_export_is_not_exported_again(exported, cli, tmp_path) -> None:
    cli("export", exported, "--out", tmp_path / "again").refuses(2, "exported already")


def test_an_engine_that_cannot_run_it_is_refused(exported, cli, tmp_path) -> None:
    words = ("predict", sample_images()[0], "--model", exported, "--out", tmp_path)
    cli(*words, "--engine", "torch").refuses(2, "torch cannot run", "openvino or onnxruntime")
    cli(*words, "--engine", "onnxruntime", "--precision", "bf16").refuses(2, "onnxruntime", "openvino")


class Fixed:
    """Finds the same wherever it looks."""

    name, nms_iou, most = "fixed", 0.5, 10

    def __init__(self, *boxes: tuple[float, ...], label: int = 0) -> None:
        corners = torch.tensor(boxes).reshape(-1, 4)
        labels = torch.full((len(boxes),), label)
        self.found = Detections(corners, torch.linspace(0.9, 0.5, len(boxes)), labels, labels, labels >= 0)

    def detect(self, images, config) -> list[Detections]:
        return [self.found for _ in images]


def matched(one: Fixed, other: Fixed) -> float:
    return compare(one, other, [read_image(sample_images()[0])], _description()).matched


def test_parity_counts_twins_on_both_sides() -> None:
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


def test_a_graph_that_finds_something_else_leaves_nothing_behind(cli, tmp_path, monkeypatch) -> None:
    from fpnkit.export import export as room

    case = Case((480, 640), False, 1, 100, 100, 0.99, 0.0, 0.0, 1.0, 1.0)
    monkeypatch.setattr(room, "write_graph", lambda folder, *_: None)
    monkeypatch.setattr(room, "open_exported", lambda folder: (Fixed(), _description()))
    monkeypatch.setattr(room, "compare", lambda *_, **__: Parity((case,)))
    cli("export", "default", "--out", tmp_path / "out").refuses(1, "99.0 %", "99.5 %", "nothing was written")
    assert list(tmp_path.iterdir()) == []


def _description():
    detector, card = graphs.load_weights(fpnkit.inference.predictor.find_model("default"))
    choices = {"format": "onnx", "precision": "float32", "pixels": True, "resizes": False, "size": None}
    return graphs.describe(card, detector, **choices)


def test_too_much_lost_ap_is_an_error() -> None:
    from fpnkit.export.export import Report, require_good

    described = _description()
    parity = Parity((Case((480, 640), False, 1, 100, 100, 1.0, 0.0, 0.0, 1.0, 1.0),))
    require_good(Report(described, "openvino", parity, 0.25, 0.2496))
    with pytest.raises(ExportError, match=r"0\.06 points of AP"):
        require_good(Report(described, "openvino", parity, 0.25, 0.2494))
