"""A detector that shares nothing with Faster R-CNN goes through everything, with an output that no other one has."""

import json

import numpy as np
import pytest
import torch
from shapes import draw_shapes
from torch import Tensor, nn

import fpnkit
from fpnkit.cli import main
from fpnkit.data.pixels import PreprocessConfig
from fpnkit.data.read import read_data
from fpnkit.detectors import Detector
from fpnkit.errors import ConfigError
from fpnkit.evaluation.evaluate import evaluate
from fpnkit.export.export import ExportConfig, export
from fpnkit.graph.exported import read_card
from fpnkit.ops.nms import nms_keep, top_k
from fpnkit.outputs import BASE_OUTPUTS, OutputSpec
from fpnkit.structures import ImageBatch, Targets

STRIDE = 16
PREPROCESS = PreprocessConfig(short_side=96, long_side=128, mean=(0.5,) * 3, std=(0.25,) * 3)


class Centres(Detector):
    """Every cell of one map says which object is centred in it, how large it is, and of what colour."""

    outputs = (*BASE_OUTPUTS, OutputSpec("colours", "float32", (3,)))

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.body = nn.Sequential(nn.Conv2d(3, 24, 9, STRIDE // 2, 4), nn.ReLU(), nn.Conv2d(24, 32, 5, 2, 2), nn.ReLU())
        self.head = nn.Conv2d(32, classes + 2 + 3, 1)

    @property
    def num_classes(self) -> int:
        return self.classes

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, A, classes), boxes (N, A, 4) and colours (N, A, 3) of all cells."""
        maps = self.head(self.body(images))
        rows, columns = (torch.arange(side, device=maps.device) for side in maps.shape[-2:])
        cells = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).reshape(-1, 2)
        logits, sides, colours = maps.flatten(2).transpose(1, 2).split((self.classes, 2, 3), dim=-1)
        centres, half = (cells + 0.5) * STRIDE, STRIDE * sides.clamp(-2, 3).exp()
        return logits - 3, torch.cat([centres - half, centres + half], dim=-1), colours.sigmoid()

    def forward(self, images: Tensor, sizes_hw: Tensor) -> dict[str, Tensor]:
        logits, boxes_xyxy, colours = self.predict(images)
        scores, labels = logits.sigmoid().max(dim=-1)
        kept = nms_keep(boxes_xyxy, scores, self.postprocess.nms_iou) & (scores > self.postprocess.min_score)
        best, index, valid = top_k(scores.masked_fill(~kept, float("-inf")), self.postprocess.detections)
        boxes_xyxy, colours = (
            each.gather(1, index[..., None].expand(-1, -1, each.shape[-1])) for each in (boxes_xyxy, colours)
        )
        scores, labels = best.masked_fill(~valid, 0.0), labels.gather(1, index)
        return {"boxes_xyxy": boxes_xyxy, "scores": scores, "labels": labels, "colours": colours, "valid": valid}

    def losses(self, batch: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        logits, boxes_xyxy, colours = self.predict(batch.images)
        middles = (targets.boxes_xyxy[..., None, :2] + targets.boxes_xyxy[..., None, 2:]) / 2
        cells = (boxes_xyxy[:, None, :, :2] + boxes_xyxy[:, None, :, 2:]) / 2
        inside = ((middles - cells).abs().amax(dim=-1) <= STRIDE / 2) & targets.valid[..., None]
        image, place, cell = inside.nonzero(as_tuple=True)
        wanted = torch.zeros_like(logits)
        wanted[image, cell, targets.labels[image, place]] = 1
        columns, rows = middles[image, place, 0].long().unbind(dim=-1)
        seen = batch.images[
            image, :, rows.clamp(max=batch.images.shape[2] - 1), columns.clamp(max=batch.images.shape[3] - 1)
        ]
        return {
            "class": nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / len(logits),
            "box": nn.functional.l1_loss(boxes_xyxy[image, cell], targets.boxes_xyxy[image, place]) / STRIDE,
            "colour": nn.functional.mse_loss(colours[image, cell], seen.sigmoid()),
        }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    return draw_shapes(folder / "train", 12).json, draw_shapes(folder / "val", 6, seed=1).json


def train(data, out, **settings):
    torch.manual_seed(0)
    train_json, val_json = data
    numbers = {"steps": 60, "lr": 3e-3, "warmup_steps": 5, "crop": 96, "workers": 0, "precision": "float32", **settings}
    return fpnkit.train(train_json, out, val=val_json, model=Centres(2), preprocess=PREPROCESS, **numbers)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return train(data, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def predictor(run):
    return fpnkit.load(run.folder, detector=Centres(2), min_score=0.01)


def test_it_learns(run, predictor, data):
    assert run.finished
    untrained = fpnkit.Predictor(Centres(2), predictor.classes, PREPROCESS)
    dataset = read_data(data[1])
    learnt, before = (evaluate(each.engine, dataset, PREPROCESS).metrics["AP50"] for each in (predictor, untrained))
    assert learnt > before + 0.1
    assert not any(name.startswith("proposals/") for name in evaluate(predictor.engine, dataset, PREPROCESS).metrics)


def test_a_stopped_training_resumes_to_the_same_weights(run, data, tmp_path):
    steps = iter(range(1000))
    stopped = train(data, tmp_path / "run", should_stop=lambda: next(steps) > 25)
    assert not stopped.finished
    assert train(data, tmp_path / "run", resume=True).finished
    last = "weights/last.safetensors"
    assert (tmp_path / "run" / last).read_bytes() == (run.folder / last).read_bytes()


def test_its_weights_need_the_class(run):
    with pytest.raises(ConfigError, match=r"Centres, a detector of your own: pass"):
        fpnkit.load(run.folder)


def test_results_json_and_coco_results_carry_its_output(predictor, data):
    dataset = read_data(data[1])
    result = predictor(dataset.records[0].path, min_score=0.1)
    assert len(result)
    assert result.colours.shape == (len(result), 3)
    assert [each["colour"] for each in result.detections()] == np.round(result.colours.astype(float), 4).tolist()
    assert "level" not in result.detections()[0]
    results = evaluate(predictor.engine, dataset, PREPROCESS).detections
    assert all(len(each["colour"]) == 3 for each in results)
    result.annotated()


@pytest.mark.parametrize("format", ["onnx", "openvino"])
@pytest.mark.parametrize("resizes", [False, True])
def test_its_graph_gives_the_same(run, predictor, data, tmp_path, format, resizes):
    weights, dataset = run.folder / "weights" / "best.safetensors", read_data(data[1])
    config = ExportConfig(format=format, resizes=resizes)
    report = export(weights, tmp_path / "graph", config, detector=Centres(2), photos=[dataset.records[0].path])
    assert report.parity.matched > 0.995
    assert read_card(tmp_path / "graph").outputs == Centres.outputs
    graph = fpnkit.load(tmp_path / "graph")
    network = fpnkit.load(run.folder, detector=Centres(2))
    for record in dataset.records[:3]:
        found, wanted = (each(record.path, min_score=0.1) for each in (graph, network))
        np.testing.assert_allclose(found.boxes_xyxy, wanted.boxes_xyxy, atol=1.0 if resizes else 1e-2)
        np.testing.assert_allclose(found.colours, wanted.colours, atol=1e-2 if resizes else 1e-4)
    results = evaluate(graph.engine, dataset, PREPROCESS).detections
    assert all(len(each["colour"]) == 3 for each in results)


def test_the_command_line_takes_the_graph(run, data, tmp_path, capsys):
    weights, dataset = run.folder / "weights" / "best.safetensors", read_data(data[1])
    export(weights, tmp_path / "graph", ExportConfig(), detector=Centres(2), photos=[dataset.records[0].path])
    words = ["predict", dataset.records[0].path, "--model", tmp_path / "graph", "--out", tmp_path / "out"]
    assert main([str(word) for word in [*words, "--min-score", "0.1"]]) == 0
    (entry,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert all(set(each) == {"label", "score", "box_xyxy", "colour"} for each in entry["detections"])
    words = ["evaluate", tmp_path / "graph", "--data", data[1], "--out", tmp_path / "report"]
    assert main([str(word) for word in words]) == 0
    assert "colour" in json.loads((tmp_path / "report" / "detections.json").read_text())[0]
