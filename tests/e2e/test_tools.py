"""What maintainers run: reports of a model's failures, and putting weights into the package."""

import hashlib
import importlib.util
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.ops import generalized_box_iou

from fpnkit.ops import codec
from fpnkit.weights import ModelCard, load_weights, read_card
from fpnkit.zoo import shipped

TOOLS = Path(__file__).parents[2] / "tools"


def tool(name: str):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def box(image: int, x: float, side: float, *, category: int = 1, **more) -> dict:
    area = {"area": side * side, "iscrowd": 0}
    return {"image_id": image, "category_id": category, "bbox": [x, 10.0, side, side], **area, **more}


def test_failures_names_what_was_missed_and_mistaken(tmp_path, capsys):
    pytest.importorskip("pycocotools")
    people = [box(1, 0, 20, id=1), box(1, 100, 50, id=2), box(2, 0, 50, id=3), box(1, 300, 50, id=4, category=2)]
    images = [{"id": each, "width": 640, "height": 480, "file_name": f"{each}.jpg"} for each in (1, 2)]
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "kite"}]
    truth = {"images": images, "annotations": people, "categories": categories}
    found = [
        box(1, 101, 50, score=0.9),
        box(1, 103, 50, score=0.8),
        box(1, 301, 50, score=0.7),
        box(1, 500, 50, score=0.6),
        box(2, 30, 50, score=0.9),
        box(2, 0, 50, score=0.4),
    ]
    for name, content in (("truth", truth), ("found", found)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    tool("failures").main(str(tmp_path / "truth.json"), str(tmp_path / "found.json"), 0.5)
    assert capsys.readouterr().out.splitlines() == [
        "recall, side from 16: 0 % of 1",
        "recall, side from 32: 50 % of 2",
        "detections, right: 1",
        "detections, second box on one person: 1",
        "detections, another object: 1",
        "detections, nothing annotated there: 1",
        "detections, part of a person, or several in one box: 1",
        "image 1: 1 of 2 people missed, 3 detections wrong; half of its people are under 35 pixels",
        "image 2: 1 of 1 people missed, 1 detections wrong; half of its people are under 50 pixels",
    ]


def test_shipping_stores_half_precision_and_its_hash(tmp_path, monkeypatch):
    source = tmp_path / "shipped.py"
    shutil.copy(shipped.__file__, source)
    source.write_text(re.sub('"default": "[0-9a-f]*"', '"default": ""', source.read_text()))
    original = shipped.shipped_weights("default")
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    monkeypatch.setattr(shipped, "__file__", str(source))
    tool("ship").ship(str(original), "default", (320, 480))
    written = tmp_path / "default.safetensors"
    assert f'"default": "{hashlib.sha256(written.read_bytes()).hexdigest()}"' in source.read_text()
    card = load_weights(original)[1]
    preprocess = replace(card.preprocess, short_side=320, long_side=480)
    assert load_weights(written)[1] == ModelCard.of_spec(replace(card.spec, preprocess=preprocess), card.classes)
    assert abs(written.stat().st_size - original.stat().st_size) < 2000  # the header holds the whole spec


def test_giou_of_deltas_is_that_of_the_boxes_wherever_they_are():
    weights, generator = (10.0, 10.0, 5.0, 5.0), torch.Generator().manual_seed(0)
    corners = 300 * torch.rand(20, 2, generator=generator)
    rois = torch.cat([corners, corners + 5 + 90 * torch.rand(20, 2, generator=generator)], dim=1)
    predicted, wanted = (torch.randn(20, 4, generator=generator) for _ in range(2))
    loss = tool("ablation").giou_loss(predicted, wanted, weights=weights)
    made, right = (codec.decode_deltas(each, rois, weights=weights) for each in (predicted, wanted))
    torch.testing.assert_close(loss, 10 * (1 - generalized_box_iou(made, right).diagonal()), atol=1e-3, rtol=0)


def test_the_ablation_starts_from_the_model_that_ships():
    module = tool("ablation")
    assert module.ROWS["as shipped"].spec.backbone == read_card(shipped.shipped_weights("default")).spec.backbone
    shipped_model, _ = load_weights(shipped.shipped_weights("default"))
    ours, theirs = (each.state_dict() for each in (module.built(module.ROWS["as shipped"]), shipped_model))
    assert {name: each.shape for name, each in ours.items()} == {name: each.shape for name, each in theirs.items()}
    p3 = module.built(module.ROWS["P3 to P7"])
    assert [level.stride for level in p3.pyramid.levels] == [8, 16, 32, 64, 128]
    assert set(p3.rpn.anchor_sizes.values()) == {(24,), (48,), (96,), (192,), (384,)}
    assert len(p3.roi.stages[0].levels) == 3


def test_the_ablation_keeps_its_figures_in_files_without_spaces(tmp_path, capsys):
    module = tool("ablation")
    figures = dict.fromkeys(module.COLUMNS, 0.25)
    path = module.result_path(tmp_path, "no copy-paste")
    assert path.name == "no-copy-paste.json"
    path.write_text(json.dumps(figures))
    module.table(tmp_path)
    assert "| no copy-paste | 25.0 | 25.0 |" in capsys.readouterr().out
    kept = Path(__file__).parents[2] / "docs" / "benchmarks" / "ablation"
    files = {each.name for each in kept.iterdir()}
    assert len(files) > 5
    assert files <= {module.result_path(kept, name).name for name in module.ROWS}


def test_variants_are_the_same_weights_otherwise_used():
    module = tool("variants")
    path = shipped.shipped_weights("default")
    detector, card = load_weights(path)
    assert module.with_proposals(path, card, 7).rpn.config.proposals == 7
    first = module.first_stage(detector, card)
    assert torch.equal(first.roi.fc1.weight, detector.roi.stages[0].fc1.weight)
    assert first.postprocess == detector.postprocess
