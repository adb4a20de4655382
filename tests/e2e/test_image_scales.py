"""Prediction at several image scales, merged: figure 1 (a) around a trained detector."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import batched_nms

import fpnkit
from fpnkit.data.images import read_image
from fpnkit.data.samples import FOLDER, scale_chart
from fpnkit.errors import ConfigError
from fpnkit.inference.boxes import iou
from fpnkit.inference.passes import merge
from fpnkit.outputs import Postprocess


@pytest.fixture(scope="module")
def plain():
    """The shipped detector."""
    return fpnkit.load("default", device="cpu")


@pytest.fixture(scope="module")
def at_scales(plain):
    """The shipped detector at other image scales, of images of half its size: scales -> predictor."""
    small = replace(plain.preprocess, short_side=320, long_side=428)
    return lambda *scales: fpnkit.Predictor(plain.engine, plain.classes, small, scales=scales)


@pytest.fixture(scope="module")
def chart():
    return scale_chart(read_image(FOLDER / "astronaut.jpg"))


def test_scale_1_alone_is_plain_prediction(at_scales, plain, chart):
    predictor = at_scales(1)
    found = predictor(chart, min_score=0.05)
    (wanted,) = plain.engine.detect([found.image], predictor.preprocess)
    kept = wanted["scores"] >= 0.05
    assert len(found) > 5
    np.testing.assert_array_equal(found.boxes_xyxy, wanted["boxes_xyxy"][kept])
    np.testing.assert_array_equal(found.scores, wanted["scores"][kept])
    np.testing.assert_array_equal(found.levels, wanted["levels"][kept])


def test_scales_merge_what_each_finds_without_duplicates(at_scales, chart):
    each = [at_scales(scale)(chart, min_score=0.05) for scale in (0.5, 1.5)]
    both = at_scales(0.5, 1.5)(chart, min_score=0.05)
    boxes = np.concatenate([result.boxes_xyxy for result in each])
    scores = np.concatenate([result.scores for result in each])
    one_class = torch.zeros(len(boxes), dtype=torch.int64)
    kept = batched_nms(torch.from_numpy(boxes), torch.from_numpy(scores), one_class, 0.5)[:100].numpy()
    np.testing.assert_array_equal(both.boxes_xyxy, boxes[kept])
    np.testing.assert_array_equal(both.scores, scores[kept])
    assert any(len(both) > len(result) for result in each)
    overlap = iou(both.boxes_xyxy, both.boxes_xyxy) - np.eye(len(both))
    assert overlap.max() <= 0.5 + 1e-6
    assert (both.boxes_xyxy >= 0).all()
    assert (both.boxes_xyxy <= np.array(both.size_wh * 2)).all()


def test_the_order_of_scales_does_not_matter(at_scales, chart):
    first, second = at_scales(0.5, 1)(chart, min_score=0.05), at_scales(1, 0.5, 1)(chart, min_score=0.05)
    np.testing.assert_array_equal(first.boxes_xyxy, second.boxes_xyxy)


def test_twice_the_size_finds_small_people_that_were_missed(plain):
    photo, street = read_image(FOLDER / "astronaut.jpg"), Image.new("RGB", (1600, 1200), "grey")
    wanted = []
    for place, side in enumerate((64, 48, 40, 32, 24)):
        left, top = 60 + 200 * place, 300
        street.paste(photo.resize((side, side), Image.Resampling.LANCZOS), (left, top))
        wanted.append([left, top, left + side, top + side])
    boxes = np.array(wanted, dtype=np.float32)
    twice = fpnkit.Predictor(plain.engine, plain.classes, plain.preprocess, scales=(1, 2))
    once_found, twice_found = (iou(boxes, each(street).boxes_xyxy).max(axis=1) for each in (plain, twice))
    assert (twice_found > 0.4).all()
    assert (once_found <= 0.4).any()


def test_merging_keeps_classes_apart_and_the_best():
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 0, 60, 10]])
    found = [
        {"boxes_xyxy": boxes, "scores": np.array(scores), "labels": np.array([0, 1, 0]), "levels": np.full(3, level)}
        for scores, level in (([0.9, 0.8, 0.3], 4), ([0.7, 0.95, 0.6], 5))
    ]
    merged = merge(found, Postprocess(nms_iou=0.5, detections=3))
    assert merged["scores"].tolist() == pytest.approx([0.95, 0.9, 0.6])
    assert merged["labels"].tolist() == [1, 0, 0]
    assert merged["levels"].tolist() == [5, 4, 5]
    assert len(merge(found, Postprocess(nms_iou=0.5, detections=2))["scores"]) == 2
    assert len(merge(found, Postprocess(nms_iou=0.95, detections=9))["scores"]) == 3


@pytest.mark.parametrize("scales", [(), (0,), (1, -0.5), (float("nan"),), (float("inf"),), (50, 100)])
def test_bad_scales_are_refused(scales, untrained):
    with pytest.raises(ConfigError, match="above 0 and at most 10, got"):
        fpnkit.load("default", scales=scales)
    with pytest.raises(ConfigError, match="above 0 and at most 10, got"):
        fpnkit.Predictor(untrained.engine, untrained.classes, untrained.preprocess, scales=scales)


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
