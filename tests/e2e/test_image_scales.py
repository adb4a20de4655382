"""Prediction at several image scales, merged: figure 1 (a) around a trained detector."""

import pytest
import torch
from PIL import Image
from torchvision.ops import batched_nms

import fpnkit
from fpnkit.data.images import read_image
from fpnkit.data.samples import FOLDER, scale_chart
from fpnkit.errors import ConfigError
from fpnkit.inference.passes import merge
from fpnkit.ops.boxes import iou
from fpnkit.structures import Detections


@pytest.fixture(scope="module")
def at_scales():
    """The shipped detector at other image scales: scales -> predictor."""
    plain = fpnkit.load("default", device="cpu")
    return lambda *scales: fpnkit.Predictor(plain.detector, plain.classes, plain.preprocess, scales=scales)


@pytest.fixture(scope="module")
def chart():
    return scale_chart(read_image(FOLDER / "astronaut.jpg"))


def test_scale_1_alone_is_plain_prediction(at_scales, chart):
    plain, scaled = fpnkit.load("default", device="cpu")(chart, min_score=0.05), at_scales(1)(chart, min_score=0.05)
    assert len(plain) > 5
    assert torch.equal(scaled.boxes_xyxy, plain.boxes_xyxy)
    assert torch.equal(scaled.scores, plain.scores)
    assert torch.equal(scaled.levels, plain.levels)


def test_scales_merge_what_each_finds_without_duplicates(at_scales, chart):
    each = [at_scales(scale)(chart, min_score=0.05) for scale in (0.5, 1.5)]
    both = at_scales(0.5, 1.5)(chart, min_score=0.05)
    boxes = torch.cat([result.boxes_xyxy for result in each])
    scores = torch.cat([result.scores for result in each])
    kept = batched_nms(boxes, scores, torch.zeros(len(boxes), dtype=torch.int64), 0.5)[:100]
    assert torch.equal(both.boxes_xyxy, boxes[kept])
    assert torch.equal(both.scores, scores[kept])
    assert any(len(both) > len(result) for result in each)
    overlap = iou(both.boxes_xyxy, both.boxes_xyxy) - torch.eye(len(both))
    assert overlap.max() <= 0.5 + 1e-6
    width, height = both.size
    assert (both.boxes_xyxy >= 0).all()
    assert (both.boxes_xyxy <= torch.tensor([width, height] * 2)).all()


def test_the_order_of_scales_does_not_matter(at_scales, chart):
    first, second = at_scales(0.5, 1)(chart, min_score=0.05), at_scales(1, 0.5, 1)(chart, min_score=0.05)
    assert torch.equal(first.boxes_xyxy, second.boxes_xyxy)


def test_twice_the_size_finds_small_people_that_were_missed(at_scales):
    photo, street = read_image(FOLDER / "astronaut.jpg"), Image.new("RGB", (1600, 1200), "grey")
    wanted = []
    for place, side in enumerate((64, 48, 40, 32, 24)):
        left, top = 60 + 200 * place, 300
        street.paste(photo.resize((side, side), Image.Resampling.LANCZOS), (left, top))
        wanted.append([left, top, left + side, top + side])
    boxes = torch.tensor(wanted, dtype=torch.float32)
    plain, twice = (iou(boxes, at_scales(*scales)(street).boxes_xyxy).amax(dim=1) for scales in ((1,), (1, 2)))
    assert (twice > 0.4).all()
    assert (plain <= 0.4).any()


def test_merging_keeps_classes_apart_and_the_best():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 0, 60, 10]])
    found = [
        Detections(boxes, torch.tensor(scores), torch.tensor(labels), torch.full((3,), level), torch.ones(3).bool())
        for scores, labels, level in (([0.9, 0.8, 0.3], [0, 1, 0], 4), ([0.7, 0.95, 0.6], [0, 1, 0], 5))
    ]
    merged = merge(found, nms_iou=0.5, most=3)
    assert merged.scores.tolist() == pytest.approx([0.95, 0.9, 0.6])
    assert merged.labels.tolist() == [1, 0, 0]
    assert merged.levels.tolist() == [5, 4, 5]
    assert len(merge(found, nms_iou=0.5, most=2)) == 2


@pytest.mark.parametrize("scales", [(), (0,), (1, -0.5), (float("nan"),), (float("inf"),), (50, 100)])
def test_bad_scales_are_refused(scales, untrained):
    with pytest.raises(ConfigError, match="above 0 and at most 10, got"):
        fpnkit.load("default", scales=scales)
    with pytest.raises(ConfigError, match="above 0 and at most 10, got"):
        fpnkit.Predictor(untrained.detector, untrained.classes, untrained.preprocess, scales=scales)


def test_scales_are_an_option(tmp_path, cli, photo, weights, read_json):
    words = ("predict", photo, "--out", tmp_path / "out", "--model", weights, "--device", "cpu", "--min-score", 0)
    assert cli(*words, "--scales", "0.5,1.5").code == 0
    expected = fpnkit.load(weights, device="cpu", scales=(0.5, 1.5))(photo, min_score=0).detections()
    assert read_json(tmp_path / "out" / "predictions.json")[0]["detections"] == expected
    cli(*words, "--scales", "1,0").refuses(2, "scales are one or more factors", "got 0")
    wrong = cli(*words, "--scales", "1;2")
    assert wrong.code == 2
    assert "expected numbers with commas between, like 0.5,1,2; got '1;2'" in wrong.err


def test_features_of_several_scales_are_refused(at_scales, photo):
    with pytest.raises(ConfigError, match="features are of one pass"):
        at_scales(1, 2)(photo, features=True)
