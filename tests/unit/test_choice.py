"""Which model is trained, from which weights, by which recipe."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fpnkit.errors import CheckpointError, ConfigError
from fpnkit.training import OptimizerConfig, TrainConfig, choose
from fpnkit.training.choice import read_recipe
from fpnkit.weights import InitialWeights
from fpnkit.zoo import preset


def test_by_default_coco80_is_fine_tuned() -> None:
    chosen = choose()
    assert chosen.weights.text == "coco80"
    assert chosen.model == InitialWeights.parse("coco80").spec
    assert chosen.config == TrainConfig()
    assert "fine-tunes the shipped coco80; weights=WHAT starts from something else" in chosen.note


def test_another_model_starts_from_random_weights_and_says_so() -> None:
    for chosen in (choose("faster_rcnn_lite0_fpn"), choose(parts={"pyramid": "pan"})):
        assert chosen.weights.kind == "random"
        assert "random weights, which need long training and much data; weights=WHAT" in chosen.note
    assert choose("faster_rcnn_lite0_fpn", "timm").note == "starts from ImageNet weights of the backbone, by timm"


def test_weights_of_fpnkit_bring_their_model() -> None:
    assert choose(weights="default").model == InitialWeights.parse("default").spec
    assert choose("faster_rcnn_lite0_fpn", "default").model == preset("faster_rcnn_lite0_fpn")
    assert choose(weights="random").model == InitialWeights.parse("coco80").spec


def test_parts_change_the_model() -> None:
    spec = choose(parts={"backbone": "resnet18", "pyramid": "bifpn", "channels": 48, "head": "fast_rcnn"}).model
    assert (spec.backbone.name, spec.pyramid.name, spec.pyramid.channels, spec.cascade) == (
        "resnet18",
        "bifpn",
        48,
        None,
    )


def test_settings_reach_the_recipe_and_the_model() -> None:
    settings = {
        "lr": 1e-4,
        "optim.batch_size": "4",
        "augment": {"scale": (0.5, 2)},
        "model.rpn.anchor_scale": 6,
        "model.postprocess.detections": "300",
        "epochs": 3,
    }
    chosen = choose(settings=settings)
    assert (chosen.config.optim.lr, chosen.config.optim.batch_size, chosen.config.epochs) == (1e-4, 4, 3)
    assert chosen.config.augment.scale == (0.5, 2)
    assert (chosen.model.rpn.anchor_scale, chosen.model.postprocess.detections) == (6, 300)
    assert chosen.weights.text == "coco80"  # other numbers are no other model
    assert choose(settings={"optim": OptimizerConfig(lr=1e-3)}).config.optim.lr == 1e-3


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"optim.rl": 1}, r"there is no field 'optim\.rl': did you mean optim\.lr\?"),
        ({"epoch": 1}, r"there is no field 'epoch': did you mean epochs\?"),
        ({"model.rpn.anchor_scales": 1}, r"'model\.rpn\.anchor_scales': did you mean model\.rpn\.anchor_scale\?"),
        ({"epochs": "many"}, r"epochs expects int or none, got 'many'"),
        ({"model.postprocess.detections": 0}, r"postprocess\.detections must be 1 or more, got 0"),
    ],
)
def test_unknown_settings_are_refused_with_the_nearest(settings: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        choose(settings=settings)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean faster_rcnn_lite0_fpn"):
        choose("faster_rcnn_lite_fpn")
    with pytest.raises(CheckpointError, match="did you mean coco80"):
        choose(weights="coco8")
    with pytest.raises(ConfigError, match="did you mean bifpn"):
        choose(parts={"pyramid": "bifpm"})


def test_a_run_is_a_recipe(tmp_path) -> None:
    path = tmp_path / "config.json"
    spec = replace(preset("faster_rcnn_lite0_fpn"), cascade=None)
    content = {"model": spec.as_plain(), "weights": "timm", "train": {"epochs": 3, "optim": {"lr": 1e-4}}}
    path.write_text(json.dumps({"fpnkit": "0", "classes": ["a"], "length": {"steps": 9}, **content}))
    assert read_recipe(path) == (TrainConfig(epochs=3, optim=OptimizerConfig(lr=1e-4)), spec, "timm")
    chosen = choose(recipe=path, settings={"epochs": 4})
    assert (chosen.model, chosen.weights.text, chosen.config.epochs) == (spec, "timm", 4)
    old = {"fpnkit": "0.1.0", "classes": ["a"], "train": {"model": "faster_rcnn_lite0_fpn", "epochs": 12, "ema": 0.0}}
    path.write_text(json.dumps(old))
    assert read_recipe(path) == (TrainConfig(epochs=12, ema=0.0), preset("faster_rcnn_lite0_fpn"), None)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected fields and values, got a list"),
        ('{"epoch": 1}', "there is no field 'epoch': did you mean epochs"),
        ('{"model": "no"}', "there is no model named 'no'"),
        ('{"model": {"rpm": {}}}', "there is no field 'rpm'"),
        ('{"model": 3}', "expected fields and values, got a value of type int"),
    ],
)
def test_bad_recipes_are_refused(content: str, told: str, tmp_path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=told) as caught:
        read_recipe(path)
    assert str(path) in str(caught.value)
