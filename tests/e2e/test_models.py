"""`fpnkit models`: presets, backbones of timm, and what is inside a model."""

import json

import torch
from torch import nn

from fpnkit import zoo
from fpnkit.data.pixels import PreprocessConfig
from fpnkit.detectors import Detector
from fpnkit.settings import with_settings
from fpnkit.weights import ModelCard, find_weights, save_weights
from fpnkit.zoo import PRESETS, shipped


def test_presets_with_what_they_cost_and_what_ships(cli, tmp_path, read_json):
    out = tmp_path / "models.json"
    done = cli("models", "--json", out)
    assert (done.code, done.err) == (0, "")
    listed = {each["name"]: each for each in read_json(out)}
    assert list(listed) == list(PRESETS)
    for name, each in listed.items():
        line = next(line for line in done.out.splitlines() if line.startswith(f"{name} "))
        assert f"{each['parameters'] / 1e6:.1f} M" in line
        assert f"{each['gmacs']:.1f}" in line
        assert zoo.ModelSpec.from_plain(each["spec"]) == PRESETS[name]
    assert 41e6 < listed["faster_rcnn_r50_fpn"]["parameters"] < 42e6
    assert listed["faster_rcnn_r50_fpn"]["size_hw"] == [800, 1344]
    ships = {each["name"]: each for each in listed["cascade_rcnn_lite2_fpn"]["ships"]}
    assert set(ships) == set(shipped.SHA256)
    assert (ships["coco80"]["classes"], ships["default"]["classes"]) == (80, 1)
    assert ships["default"]["bytes"] == find_weights("default").stat().st_size
    assert "default: 1 class, 2" in done.out


def test_backbones_of_timm(cli, read_json, tmp_path):
    done = cli("models", "timm", "convnext_n*", "--json", tmp_path / "out.json")
    assert done.code == 0
    listed = {each["name"]: each for each in read_json(tmp_path / "out.json")}
    assert {"convnext_nano", "convnext_nano_ols"} <= set(listed)
    assert all(name.startswith("convnext_n") for name in listed)
    assert listed["convnext_nano"]["pretrained"][0] == "in12k_ft_in1k"
    assert listed["convnext_nano"]["strides"] is None
    line = next(line for line in done.out.splitlines() if line.startswith("convnext_nano "))
    assert "in12k_ft_in1k" in line
    cli("models", "timm", "convnxt_tiny*").refuses(
        2, "no network of timm has a name like", "did you mean convnext_tiny?"
    )


def test_backbones_that_are_probed(cli, read_json, tmp_path):
    assert cli("models", "timm", "resnet10t", "--probe", "--json", tmp_path / "out.json").code == 0
    (network,) = read_json(tmp_path / "out.json")
    backbone = zoo.build(with_settings(zoo.ModelSpec(), ["backbone.name=resnet10t"]), 1).backbone
    assert network["strides"] == [4, 8, 16, 32]
    assert network["channels"] == [level.channels for level in backbone.levels]
    assert network["parameters"] == sum(each.numel() for each in backbone.parameters())


def test_what_is_inside_weights(cli, read_json, tmp_path):
    done = cli("models", "show", "default", "--json", tmp_path / "out.json")
    assert done.code == 0
    inside = read_json(tmp_path / "out.json")
    assert inside["name"] == "cascade_rcnn_lite2_fpn"
    assert inside["classes"] == ["person"]
    assert inside["sha256"] == shipped.SHA256["default"]
    assert zoo.ModelSpec.from_plain(inside["spec"]).preprocess.short_side == 600
    for text in ("1: person", "backbone", "tf_efficientnet_lite2", "anchor_scale", "written by"):
        assert text in done.out


def test_what_is_inside_a_preset_can_be_set(cli):
    """Every line of the tree is FIELD VALUE as --set takes them."""
    spec = PRESETS["cascade_rcnn_lite2_fpn"]
    tree = cli("models", "show", "cascade_rcnn_lite2_fpn").out.split("  spec\n")[1].splitlines()
    words, outer = [], ""
    for line in tree:
        name, *value = line.split()
        if not value:
            outer = name
        else:
            words.append(f"{outer}.{name}={value[0]}")
    assert len(words) > 40
    again = with_settings(zoo.ModelSpec(), words)
    assert again == spec


def test_what_is_inside_a_run(cli, tmp_path, read_json, capsys):
    spec = with_settings(PRESETS["faster_rcnn_lite0_fpn"], ["pyramid.name=bifpn", "pyramid.repeats=1"])
    torch.manual_seed(0)
    run = tmp_path / "run"
    save_weights(run / "weights" / "best.safetensors", zoo.build(spec, 2), ModelCard.of_spec(spec, ("a", "b")))
    (run / "config.json").write_text(json.dumps({"weights": "coco80"}))
    (run / "environment.json").write_text(json.dumps({"command": ["fpnkit", "train"], "torch": "2"}))
    done = cli("models", "show", run)
    assert done.code == 0
    for text in (
        "faster_rcnn on tf_efficientnet_lite0 + bifpn",
        "2: a, b",
        "coco80",
        "fpnkit train",
        "repeats",
        "bifpn",
    ):
        assert text in done.out
    done = cli("models", "show", run, "--json", "-")
    inside = json.loads(done.out)
    assert inside["spec"]["pyramid"]["repeats"] == 1
    assert inside["run"]["command"] == ["fpnkit", "train"]
    assert inside["file"] == str(run / "weights" / "best.safetensors")


class Mine(Detector):
    """A detector that no spec describes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)

    num_classes = 1
    forward = losses = None


def test_what_is_inside_a_detector_of_ones_own(cli, tmp_path):
    preprocess = PreprocessConfig(short_side=64, long_side=64, mean=(0.5,) * 3, std=(0.5,) * 3)
    detector, path = Mine(), tmp_path / "mine.safetensors"
    save_weights(path, detector, ModelCard.of_detector(detector, preprocess, ("a",)))
    done = cli("models", "show", path)
    assert done.code == 0
    for text in ("Mine", "1: a", "a detector of your own"):
        assert text in done.out


def test_mistakes_are_explained(cli, tmp_path):
    cli("models", "show").refuses(2, "show expects a preset, 'default', a run's folder or a .safetensors file")
    cli("models", "show", "cascade_rcnn_lite2").refuses(3, "did you mean cascade_rcnn_lite2_fpn?")
    cli("models", "show", "defualt").refuses(3, "did you mean default?")
    cli("models", "show", tmp_path).refuses(3, tmp_path, "holds no weights/best.safetensors")
    cli("models", "presets", "default").refuses(2, "did you mean 'fpnkit models show default'?")
    cli("models", "show", "default", "--probe").refuses(2, "--probe is for 'fpnkit models timm', not for show")
    assert cli("models", "shwo").code == 2
