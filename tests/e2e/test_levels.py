"""What `fpnkit levels` draws and where, and the pyramid beside the detections in Python."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fpnkit
from fpnkit.data.images import read_image
from fpnkit.data.preprocess import Preprocess
from fpnkit.data.samples import FOLDER, scale_chart
from fpnkit.detectors import FasterRCNN
from fpnkit.errors import ConfigError
from fpnkit.heads import FastRCNNConfig, FastRCNNHead, RPNHead
from fpnkit.inference import predictor as predict
from fpnkit.levels import plots
from fpnkit.levels.view import LevelView, PyramidView, eq1_steps, view_levels
from fpnkit.pictures.annotate import LEVEL_COLOURS, level_colour
from fpnkit.pyramids import ImagePyramid

PHOTO = FOLDER / "astronaut.jpg"


@pytest.fixture(scope="module")
def detector():
    """The shipped model, of smaller images than its own."""
    predictor = fpnkit.load("default", device="cpu")
    predictor.preprocess = replace(predictor.preprocess, short_side=397, long_side=601)
    return predictor


def network_input(detector, image: np.ndarray):
    return Preprocess(detector.preprocess)([image])


@pytest.fixture(scope="module")
def chart():
    return scale_chart(read_image(PHOTO))


@pytest.fixture(scope="module")
def view(detector, chart):
    return view_levels(detector, chart)


def with_person_at(corner: str, side: int = 110) -> Image.Image:
    """Grey, with the photograph of a person small in one corner; its width is no multiple of any stride."""
    canvas = Image.new("RGB", (601, 397), "#8a8f94")
    left = 0 if "left" in corner else canvas.width - side
    top = 0 if "top" in corner else canvas.height - side
    canvas.paste(read_image(PHOTO).resize((side, side)), (left, top))
    return canvas


def centre(heat: np.ndarray) -> tuple[float, float]:
    """Centre of the heat, in shares of width and height."""
    heat = heat.clip(min=0) ** 2
    down, across = (np.linspace(0, 1, length) for length in heat.shape)
    return float((heat.sum(0) * across).sum() / heat.sum()), float((heat.sum(1) * down).sum() / heat.sum())


def test_features_are_the_pyramid_of_the_same_pass_without_padding(detector):
    picture = read_image(PHOTO).resize((512, 301))
    result = detector(picture, features=True)
    batch = network_input(detector, result.image)
    height, width = map(int, batch.sizes_hw[0])
    assert tuple(batch.images.shape[-2:]) != (height, width)
    with torch.inference_mode():
        whole = detector.detector.features(batch.images)
    assert list(result.features) == ["p2", "p3", "p4", "p5", "p6"]
    for level in detector.detector.pyramid.levels:
        feature = result.features[level.name]
        assert feature.dtype == np.float32
        assert feature.shape == (level.channels, -(-height // level.stride), -(-width // level.stride))
        wanted = whole[level.name][0, :, : feature.shape[1], : feature.shape[2]]
        np.testing.assert_allclose(feature, wanted, atol=1e-5, rtol=1e-4)


def test_features_cost_no_second_pass(detector):
    runs = []
    hook = detector.detector.backbone.register_forward_hook(lambda *given: runs.append(1))
    with_features = detector(PHOTO, features=True)
    hook.remove()
    without = detector(PHOTO)
    assert len(runs) == 1
    assert without.features is None
    np.testing.assert_array_equal(with_features.boxes_xyxy, without.boxes_xyxy)
    assert not detector.detector.rpn._forward_hooks


def test_features_of_a_batch_belong_to_their_images(detector):
    upside_down = np.asarray(read_image(PHOTO))[::-1].copy()
    pair = detector.batch([PHOTO, upside_down], features=True)
    alone = detector(upside_down, features=True)
    for name, feature in alone.features.items():
        np.testing.assert_allclose(pair[1].features[name], feature, atol=1e-3, rtol=1e-3)
    assert not np.allclose(pair[0].features["p3"], pair[1].features["p3"], atol=0.1)


def test_features_can_be_learned_from(detector):
    feature = torch.from_numpy(detector(PHOTO, features=True).features["p5"])
    layer = nn.Conv2d(feature.shape[0], 1, 1)
    layer(feature[None]).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_features_of_an_image_pyramid_are_there_too(untrained):
    """Its backbone runs several times a pass."""
    backbone = untrained.detector.backbone
    pyramid = ImagePyramid(backbone.levels, 8)
    parts = {"rpn": RPNHead(pyramid.levels), "roi": FastRCNNHead(pyramid.levels, 1, config=FastRCNNConfig(hidden=8))}
    predictor = predict.Predictor(
        FasterRCNN(backbone=backbone, pyramid=pyramid, **parts), ("person",), untrained.preprocess
    )
    features = predictor(Image.new("RGB", (64, 48)), features=True).features
    assert list(features) == [level.name for level in pyramid.levels]
    view = view_levels(predictor, Image.new("RGB", (64, 48)))
    assert [level.objectness.shape for level in view.levels] == [each.shape[1:] for each in features.values()]


@pytest.mark.parametrize("corner", ["top left", "top right", "bottom left", "bottom right"])
def test_heat_lies_where_the_object_is(corner, detector):
    view = view_levels(detector, with_person_at(corner))
    level = view.levels[1]
    across, down = centre(view.heat(level, 300, 200))
    expected = (110 / 2 / 601, 110 / 2 / 397)
    assert across == pytest.approx(expected[0] if "left" in corner else 1 - expected[0], abs=0.06)
    assert down == pytest.approx(expected[1] if "top" in corner else 1 - expected[1], abs=0.09)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_heat_of_one_cell_peaks_where_its_anchors_are_centred(offset):
    """A ramp between the cells around it, as by hand: 32 pixels from cell to cell, drawn at half the size."""
    objectness = np.zeros((3, 4), dtype=np.float32)
    objectness[1, 2] = 1
    level = LevelView(5, 32, (256.0,), np.zeros((0, 4)), offset, objectness)
    none = np.zeros(0)
    result = predict.Result(np.zeros((96, 128, 3), dtype=np.uint8), none.reshape(0, 4), none, (), none)
    heat = PyramidView(result, (128, 96), (level,)).heat(level, 64, 48)
    x, y = (2 + offset) * 32, (1 + offset) * 32
    ys, xs = np.meshgrid(np.arange(48) * 2 + 1.0, np.arange(64) * 2 + 1.0, indexing="ij")
    ramp = (1 - abs(xs - x) / 32).clip(min=0) * (1 - abs(ys - y) / 32).clip(min=0)
    np.testing.assert_allclose(heat, ramp, atol=1e-5)


def test_heat_is_the_rpns_own_and_knows_no_padding(detector):
    """The best objectness of all levels is that of the best proposal."""
    picture = read_image(PHOTO).resize((512, 301))
    view = view_levels(detector, picture)
    ((best, _),) = detector.detector.detect_and_propose(network_input(detector, view.result.image))
    strongest = max(level.objectness.max() for level in view.levels)
    assert strongest == pytest.approx(float(best.scores[0].sigmoid()), abs=1e-5)
    for level in view.levels:
        assert level.objectness.shape == tuple(-(-side // level.stride) for side in view.network_wh[::-1])


def test_peak_anchors_are_the_rpns(detector, view):
    rpn = detector.detector.rpn
    images = network_input(detector, view.result.image).images
    with torch.inference_mode():
        features = detector.detector.features(images)
    for level, spec, all_anchors in zip(
        view.levels, rpn.levels, rpn.anchors(features, tuple(images.shape[-2:])), strict=True
    ):
        cell, anchors = level.peak()
        column, row = (cell[:2] / spec.stride).astype(int).tolist()
        width = features[spec.name].shape[-1]
        start = (row * width + column) * len(rpn.config.ratios)
        np.testing.assert_allclose(anchors, all_anchors[start : start + len(anchors)], rtol=1e-5)
        assert level.objectness[row, column] == level.objectness.max()


def test_camera_orientation_is_applied(tmp_path, detector):
    picture = with_person_at("top left")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    view = view_levels(detector, tmp_path / "turned.jpg")
    assert view.result.size_wh == picture.size
    across, down = centre(view.heat(view.levels[1], 300, 200))
    assert across < 0.2
    assert down < 0.25


def test_steps_are_those_of_equation_1(detector):
    steps = eq1_steps(detector.detector)
    assert [(step.number, step.stride) for step in steps] == [(2, 4), (3, 8), (4, 16), (5, 32)]
    assert [step.low for step in steps] == pytest.approx([0, 112, 224, 448], rel=1e-3)
    assert [step.high for step in steps] == pytest.approx([112, 224, 448, float("inf")], rel=1e-3)


def test_steps_follow_the_heads_own_canonical_size(detector):
    roi = detector.detector.roi
    smaller = FastRCNNHead(roi.levels, 1, config=replace(roi.config, canonical_size=112.0, hidden=8))
    parts = {"backbone": detector.detector.backbone, "pyramid": detector.detector.pyramid, "rpn": detector.detector.rpn}
    steps = eq1_steps(FasterRCNN(**parts, roi=smaller))
    assert [step.low for step in steps] == pytest.approx([0, 56, 112, 224], rel=1e-3)


def test_object_sizes_are_in_the_networks_pixels(view):
    width, height = view.network_wh
    own_width, own_height = view.result.size_wh
    expected = [
        ((right - left) * width / own_width * (bottom - top) * height / own_height) ** 0.5
        for left, top, right, bottom in view.result.boxes_xyxy.tolist()
    ]
    assert len(expected) >= 4
    assert view.object_sizes().tolist() == pytest.approx(expected, rel=1e-4)


def test_a_level_glows_in_its_own_colour_and_only_where_there_is_heat():
    photo = Image.new("RGB", (40, 20), "white")
    heat = np.zeros((20, 40), dtype=np.float32)
    heat[:, 20:] = 1
    for number in range(2, 7):
        glowing = plots._glowing(photo, heat, level_colour(number))
        dark, lit = glowing.getpixel((5, 10)), glowing.getpixel((35, 10))
        assert dark[0] == dark[1] == dark[2] < 128
        assert lit == pytest.approx(tuple(bytes.fromhex(LEVEL_COLOURS[number][1:])), abs=1)


def test_picture_shows_every_level_in_its_colour(tmp_path, view):
    plots.draw_levels(tmp_path / "a.levels.jpg", view)
    pixels = np.asarray(Image.open(tmp_path / "a.levels.jpg").convert("RGB"), dtype=np.float32)
    for number in range(2, 7):
        colour = np.array(list(bytes.fromhex(LEVEL_COLOURS[number][1:])), dtype=np.float32)
        assert (np.abs(pixels - colour).max(axis=-1) < 12).sum() > 300, f"P{number}"


def test_dots_stand_at_size_and_level(tmp_path, monkeypatch, detector):
    drawn = []
    monkeypatch.setattr(plots, "write_figure", lambda path, figure, dpi: drawn.append(figure))
    sizes, numbers, scores = np.array([30.0, 700.0]), np.array([2, 5]), np.array([0.6, 0.9])
    plots.draw_object_sizes(tmp_path / "x.jpg", sizes, numbers, scores, eq1_steps(detector.detector))
    (dots,) = drawn[0].axes[0].collections
    assert dots.get_offsets()[:, 0].tolist() == pytest.approx([30, 700])
    assert [int(place) for place in dots.get_offsets()[:, 1]] == [0, 3]
    wanted = [bytes.fromhex(LEVEL_COLOURS[k][1:]) for k in (2, 5)]
    assert (dots.get_facecolors()[:, :3] * 255).round().astype(int).tolist() == [list(each) for each in wanted]


def written(folder) -> list[str]:
    return sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file())


def test_command_draws_each_photo_and_one_plot(tmp_path, cli, loaded, photo):
    folder = tmp_path / "in"
    (folder / "deeper").mkdir(parents=True)
    shutil.copy(photo, folder / "a.jpg")
    shutil.copy(photo, folder / "deeper" / "sizes.png")
    outcome = cli("levels", folder, "--out", tmp_path / "out", "--min-score", 0)
    assert (outcome.code, outcome.err) == (0, "")
    assert written(tmp_path / "out") == ["a.levels.jpg", "deeper/sizes.levels.jpg", "sizes.levels.jpg"]
    assert "objects in 2 images" in outcome.out


def test_own_pictures_are_no_photos_and_photos_are_never_overwritten(tmp_path, cli, loaded, photo):
    mine = photo.with_name("sizes.levels.jpg")
    Image.new("RGB", (8, 8), "green").save(mine)
    before = mine.read_bytes()
    for _ in range(2):
        assert cli("predict", photo.parent, "--out", photo.parent).code == 0
        assert cli("levels", photo.parent, "--out", photo.parent).code == 0
    assert mine.read_bytes() == before
    assert [name for name in written(photo.parent) if name.endswith(".levels.jpg")] == [
        "photo.levels.jpg",
        "sizes-2.levels.jpg",
        "sizes.levels.jpg",
        "sizes.levels.levels.jpg",
    ]


def test_tiny_and_extreme_photos_in_which_nothing_is_found(tmp_path, cli, loaded):
    sizes = [(1, 1), (1, 3000), (3000, 1), (10, 7)]
    photos = [tmp_path / f"{width}x{height}.png" for width, height in sizes]
    for path, size in zip(photos, sizes, strict=True):
        Image.new("RGB", size, "red").save(path)
    for score in (0, 1):
        outcome = cli("levels", *photos, "--out", tmp_path / "out", "--min-score", score)
        assert (outcome.code, outcome.err) == (0, "")
    assert "0 objects in 4 images" in outcome.out
    for name in ("sizes", *(path.stem for path in photos)):
        width, height = Image.open(tmp_path / "out" / f"{name}.levels.jpg").size
        assert 1000 <= width <= 4000
        assert 600 <= height <= 3000


def test_refusals_are_those_of_predict(tmp_path, cli, loaded, photo):
    out = tmp_path / "out"
    cli("levels", photo, "--min-score", 2, "--out", out).refuses(2, "--min-score must lie in 0..1")
    cli("levels", tmp_path / "no.jpg", "--out", out).refuses(3, "no.jpg: no such image file")
    cli("levels", photo, "--out", photo).refuses(2, "not a folder that can be written to")
    partly = cli("levels", photo, tmp_path / "no.jpg", "--out", out)
    assert partly.code == 4
    assert f"skipped: {tmp_path / 'no.jpg'}: no such image file" in partly.err


def test_without_matplotlib_the_reason_is_told_before_any_work(tmp_path, cli, photo, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(predict, "load", lambda *given, **named: pytest.fail("worked in vain"))
    cli("levels", photo, "--out", tmp_path / "out").refuses(2, "pip install 'fpnkit[train]'")


def test_levels_are_of_one_pass(detector):
    several = predict.Predictor(detector.detector, detector.classes, detector.preprocess, scales=(1, 2))
    with pytest.raises(ConfigError, match="one pass"):
        view_levels(several, PHOTO)
