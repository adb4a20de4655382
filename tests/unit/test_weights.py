"""Weights in files: what they say about themselves, which detector they make, and where first weights come from."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import _registry
from torch import Tensor, nn

from fpnkit.backbones import make_backbone
from fpnkit.data.pixels import PreprocessConfig
from fpnkit.detectors import Detector
from fpnkit.errors import CheckpointError, ConfigError
from fpnkit.settings import as_plain, with_settings
from fpnkit.structures import ClassLayer
from fpnkit.weights import (
    InitialWeights,
    ModelCard,
    Transfer,
    find_weights,
    load_weights,
    read_card,
    save_weights,
    transfer_weights,
)
from fpnkit.weights.checkpoint import read_header, read_tensors
from fpnkit.zoo import PRESETS, ModelSpec, build

PARTS = ["backbone.name=resnet10t", "pyramid.name=bifpn", "pyramid.repeats=1", "pyramid.channels=8", "roi.hidden=16"]
SMALL = with_settings(ModelSpec(), [*PARTS, "cascade.stages=2", "preprocess.short_side=96", "postprocess.detections=9"])
CLASSES = ("cat", "dog", "owl")


class Own(Detector):
    """A detector that no spec describes."""

    def __init__(self, classes: int, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, width, 3)
        self.scores = nn.Linear(width, classes)

    @property
    def num_classes(self) -> int:
        return self.scores.out_features

    def forward(self, images: Tensor, sizes_hw: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def losses(self, batch, targets) -> dict[str, Tensor]:
        raise NotImplementedError

    def class_layers(self) -> tuple[ClassLayer, ...]:
        return (ClassLayer("scores"),)


PREPROCESS = PreprocessConfig(short_side=64, long_side=64, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Path, Detector]:
    """Weights of a small cascade of three classes, and the detector."""
    torch.manual_seed(7)
    detector = build(SMALL, len(CLASSES))
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(path, detector, ModelCard.of_spec(SMALL, CLASSES))
    return path, detector


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_weights_carry_their_spec(saved):
    path, detector = saved
    made, card = load_weights(path)
    assert card == ModelCard.of_spec(SMALL, CLASSES)
    assert (card.spec, card.preprocess) == (SMALL, SMALL.preprocess)
    assert card.name == "cascade_rcnn on resnet10t + bifpn"
    assert made.postprocess.detections == 9
    assert not made.training
    assert_same(made, detector)
    given = build(SMALL, 3)
    assert load_weights(path, detector=given)[0] is given
    assert_same(given, detector)
    with pytest.raises(CheckpointError, match="holds a detector of 3 classes, the one that is given has 2"):
        load_weights(path, detector=build(SMALL, 2))


def test_files_of_format_1_make_the_same_detector(tmp_path):
    """As fpnkit 0.3 and before wrote them: the name of a preset, and preprocessing that may differ from its own."""
    torch.manual_seed(0)
    detector = build("faster_rcnn_lite0_fpn", 2)
    preprocess = {"short_side": 320, "long_side": 512, "mean": [0.5] * 3, "std": [0.5] * 3, "pad_to": 32}
    card = {"format": 1, "fpnkit": "0.1.0", "model": "faster_rcnn_lite0_fpn", "classes": ["a", "b"]}
    path = tmp_path / "old.safetensors"
    metadata = {"fpnkit": json.dumps({**card, "preprocess": {**preprocess, "antialias": True}})}
    save_file({name: value.clone() for name, value in detector.state_dict().items()}, path, metadata=metadata)
    made, read = load_weights(path)
    assert_same(made, detector)
    assert (read.name, read.classes) == ("faster_rcnn_lite0_fpn", ("a", "b"))
    expected = PreprocessConfig(short_side=320, long_side=512, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert read.spec == dataclasses.replace(PRESETS["faster_rcnn_lite0_fpn"], preprocess=expected)


def test_shipped_weights_are_of_a_preset():
    for name, classes in (("default", 1), ("coco80", 80)):
        card = read_card(find_weights(name))
        assert (card.name, len(card.classes)) == ("cascade_rcnn_lite2_fpn", classes)
        assert card.spec is not None
        assert card.spec.postprocess == PRESETS["cascade_rcnn_lite2_fpn"].postprocess


def test_headers_hold_every_field_of_the_spec(saved):
    content = read_header(saved[0])
    assert content["format"] == 2
    assert content["spec"] == SMALL.as_plain()
    assert content["spec"]["pyramid"] == {"name": "bifpn", "channels": 8, "repeats": 1, "extra_levels": 1}


def test_fields_that_an_older_fpnkit_did_not_write_take_their_defaults(saved, tmp_path):
    path, detector = saved
    content = read_header(path)
    del content["spec"]["rpn"]["nms_iou"], content["spec"]["postprocess"]["nms_iou"], content["spec"]["roi"]["pooled"]
    older = tmp_path / "older.safetensors"
    save_file(read_tensors(path), older, metadata={"fpnkit": json.dumps(content)})
    made, card = load_weights(older)
    assert card.spec == SMALL
    assert_same(made, detector)


def test_a_detector_of_your_own_is_saved_and_needs_itself_to_be_loaded(tmp_path):
    path, mine = tmp_path / "own.safetensors", Own(2)
    save_weights(path, mine, ModelCard.of_detector(mine, PREPROCESS, ("a", "b")))
    card = read_card(path)
    assert (card.name, card.spec, card.preprocess, card.classes) == ("Own", None, PREPROCESS, ("a", "b"))
    with pytest.raises(ConfigError, match=r"weights of Own, a detector of your own: pass one, load_weights\(path, det"):
        load_weights(path)
    other = Own(2)
    assert load_weights(path, detector=other) == (other, card)
    assert_same(other, mine)
    with pytest.raises(
        CheckpointError, match=r"body.weight has shape \(4, 3, 3, 3\), the model expects \(5, 3, 3, 3\)"
    ):
        load_weights(path, detector=Own(2, width=5))


def test_a_card_has_the_preprocessing_of_its_spec():
    with pytest.raises(ConfigError, match="a card expects the preprocess of its spec"):
        ModelCard(classes=("a",), spec=SMALL, preprocess=PREPROCESS, name="x")
    for classes in ((), ("a", "a")):
        with pytest.raises(ConfigError, match="one class or more, each named once"):
            ModelCard.of_spec(SMALL, classes)


def test_rows_are_copied_by_the_names_of_classes(saved):
    path, source = saved
    torch.manual_seed(1)
    detector = build(SMALL, 3)
    random = {name: value.clone() for name, value in detector.state_dict().items()}
    transfer = transfer_weights(detector, ("Owl", "fox", "cat"), path)
    assert transfer == Transfer(path, kept=("Owl", "cat"), new=("fox",), dropped=("dog",))
    assert "classes kept: Owl, cat; new: fox; dropped: dog" in str(transfer)
    class_layers = [layer.name for layer in detector.class_layers()]
    assert class_layers == ["roi.stages.0.scores", "roi.stages.0.deltas", "roi.stages.1.scores", "roi.stages.1.deltas"]
    for name, value in detector.state_dict().items():
        theirs = source.state_dict()[name]
        if ".scores." in name and "roi" in name:
            assert torch.equal(value[[0, 2, 3]], theirs[[2, 0, 3]])  # the last row is the background's
            assert torch.equal(value[1], random[name][1])
        elif ".deltas." in name and "roi" in name:
            value, theirs, before = (each.unflatten(0, (3, 4)) for each in (value, theirs, random[name]))
            assert torch.equal(value[[0, 2]], theirs[[2, 0]])
            assert torch.equal(value[1], before[1])
        else:
            assert torch.equal(value, theirs), name


def test_rows_of_a_detector_of_your_own_are_copied(tmp_path):
    path, mine = tmp_path / "own.safetensors", Own(2)
    save_weights(path, mine, ModelCard.of_detector(mine, PREPROCESS, ("a", "b")))
    other = Own(3)
    transfer = InitialWeights.parse(path).apply(other, ("c", "b", "a"))
    assert transfer is not None
    assert transfer.new == ("c",)
    assert torch.equal(other.scores.weight[1:], mine.scores.weight[[1, 0]])
    assert torch.equal(other.body.weight, mine.body.weight)


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (
            ["roi.hidden=32"],
            r"roi\.stages\.0\.fc1\.weight the model has shape \(32, 392\), the weights have shape \(16, 392",
        ),
        (["cascade=none"], r"roi\.fc1\.weight the model has shape \(16, 392\), the weights have nothing"),
        (
            ["pyramid.repeats=2"],
            r"pyramid\.rounds\.1\.down\.0\.weights the model has shape \(2,\), the weights have no",
        ),
        (["pyramid.channels=16"], r"pyramid\.\S+ the model has shape"),
    ],
)
def test_another_architecture_is_refused_by_its_first_tensor(words, first, saved):
    detector = build(with_settings(SMALL, words), 2)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=rf"of another architecture \(cascade_rcnn on resnet10t \+ bifpn\): at {first}"
    ):
        transfer_weights(detector, ("cat", "dog"), saved[0])
    for name, value in detector.state_dict().items():
        assert torch.equal(value, before[name])


def test_random_weights_let_the_whole_backbone_learn():
    detector = build(SMALL, 2)
    assert not all(each.requires_grad for each in detector.backbone.parameters())
    weights = InitialWeights.parse("random")
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    assert weights.apply(detector, ("a", "b")) is None
    assert weights.spec is None
    assert all(each.requires_grad for each in detector.backbone.parameters())
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())
    assert weights.apply(Own(2), ("a", "b")) is None  # which has no backbone


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_classifiers_file_fills_the_backbone(suffix, tmp_path):
    torch.manual_seed(5)
    classifier = timm.create_model("resnet10t")
    path = tmp_path / f"resnet10t{suffix}"
    if suffix == ".pth":
        torch.save(classifier.state_dict(), path)
    else:
        save_file(classifier.state_dict(), path, metadata={"format": "pt"})
    weights = InitialWeights.parse(path)
    assert (weights.kind, weights.spec) == ("backbone", None)
    detector = build(SMALL, 2)
    heads = detector.rpn.conv.weight.clone()
    assert weights.apply(detector, ("a", "b"), spec=SMALL) is None
    assert torch.equal(detector.backbone.body.layer4[0].conv1.weight, classifier.layer4[0].conv1.weight)
    assert torch.equal(detector.rpn.conv.weight, heads)
    assert not all(each.requires_grad for each in detector.backbone.parameters())  # trained: its first stage stays
    with pytest.raises(CheckpointError, match=f"{path}: backbone weights do not fit"):
        weights.apply(build(with_settings(SMALL, ["backbone.name=resnet14t"]), 2), ("a", "b"))
    with pytest.raises(ConfigError, match=r"are for the backbone of a detector, Own has none as \.backbone"):
        weights.apply(Own(2), ("a", "b"))


def test_timms_weights_fill_the_backbone(tmp_path, monkeypatch):
    """By timm's own way of loading; only that it finds them in a file here, where tests reach no network."""
    torch.manual_seed(5)
    classifier = timm.create_model("resnet10t")
    torch.save(classifier.state_dict(), tmp_path / "downloaded.pth")
    known = timm.get_pretrained_cfg("resnet10t")
    there = dataclasses.replace(known, file=str(tmp_path / "downloaded.pth"))
    for name in ("resnet10t", f"resnet10t.{known.tag}"):
        monkeypatch.setitem(_registry._model_pretrained_cfgs, name, there)
    detector = build(SMALL, 2)
    assert InitialWeights.parse("timm").apply(detector, ("a", "b"), spec=SMALL) is None
    assert torch.equal(detector.backbone.body.layer4[0].conv1.weight, classifier.layer4[0].conv1.weight)
    assert_same(detector.backbone, make_backbone(SMALL.backbone, pretrained=True))
    with pytest.raises(ConfigError, match="weights 'timm' need a spec"):
        InitialWeights.parse("timm").apply(detector, ("a", "b"))
    (tmp_path / "downloaded.pth").unlink()
    with pytest.raises(
        CheckpointError, match=r"timm has no weights of resnet10t to load here: .*: pass a classifier's"
    ):
        InitialWeights.parse("timm").apply(detector, ("a", "b"), spec=SMALL)


def test_shipped_weights_are_found_without_torch():
    found = "from fpnkit.weights import find_weights; find_weights('default')"
    code = f"import sys; {found}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weights_are_found_by_name_run_and_file(saved, tmp_path):
    path, _ = saved
    run = tmp_path / "run"
    (run / "weights").mkdir(parents=True)
    for name in ("last", "best"):
        (run / "weights" / f"{name}.safetensors").write_bytes(path.read_bytes())
        assert InitialWeights.parse(run).path == run / "weights" / f"{name}.safetensors"
    assert InitialWeights.parse(str(run)).spec == SMALL
    assert InitialWeights.parse("coco80").path == find_weights("coco80")
    assert str(InitialWeights.parse("coco80")) == "the detector in coco80"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("coco8", "coco8: no such weights, run folder or file; did you mean coco80?"),
        ("randm", "randm: no such weights, run folder or file; did you mean random?"),
        ("gone.pth", "gone.pth: no such weights, run folder or file; without a file they are random, timm, coco80, "),
    ],
)
def test_weights_that_are_not_there_are_refused(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as error:
        InitialWeights.parse(text)
    assert str(error.value).startswith(message)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"the folder holds no weights/best\.safetensors"):
        InitialWeights.parse(tmp_path)


def test_a_backbone_takes_no_detectors_weights(saved):
    with pytest.raises(ConfigError, match="are of a whole detector"):
        InitialWeights.parse(saved[0]).fill_backbone(make_backbone(SMALL.backbone), SMALL.backbone)


def test_plain_cards(saved):
    card = read_card(saved[0])
    assert ModelCard.from_plain(json.loads(json.dumps(card.as_plain()))) == card
    own = ModelCard(classes=("a",), spec=None, preprocess=PREPROCESS, name="Own")
    assert own.as_plain()["preprocess"] == as_plain(PREPROCESS)
    assert ModelCard.from_plain(own.as_plain()) == own
