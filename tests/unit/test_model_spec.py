"""Models as data: presets, their JSON, and the networks that are built of them."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch import nn

from fpnkit import backbones, pyramids
from fpnkit.backbones import BackboneConfig, make_backbone
from fpnkit.detectors import RPN, FasterRCNN, FastRCNN
from fpnkit.errors import ConfigError
from fpnkit.heads import CascadeConfig, CascadeHead, FastRCNNConfig, FastRCNNHead, RPNConfig, RPNHead
from fpnkit.pyramids import FPN, PYRAMIDS, Pyramid, PyramidConfig, make_pyramid
from fpnkit.settings import fields_of, with_settings
from fpnkit.structures import LevelSpec
from fpnkit.zoo import PRESETS, ModelSpec, build, build_network, preset, specialised
from fpnkit.zoo.costs import model_costs
from fpnkit.zoo.presets import name_of

LEVELS = tuple(LevelSpec(f"c{k}", 2**k, 8) for k in (2, 3, 4, 5))
SMALL = with_settings(
    ModelSpec(),
    ["backbone.name=resnet10t", "pyramid.channels=16", "roi.hidden=16", "preprocess.short_side=64"],
)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json_copies_and_pickles(name):
    spec = PRESETS[name]
    again = ModelSpec.from_plain(json.loads(json.dumps(spec.as_plain())))
    for same in (again, copy.deepcopy(spec), pickle.loads(pickle.dumps(spec))):
        assert same == spec
        assert hash(same) == hash(spec)
        assert name_of(same) == name
    assert with_settings(spec, []) == spec


def test_specs_are_frozen_and_default_to_the_paper():
    with pytest.raises(FrozenInstanceError):
        ModelSpec().cascade = None  # type: ignore[misc]
    assert ModelSpec() == preset("faster_rcnn_r50_fpn")
    assert ModelSpec.from_plain({}) == ModelSpec()  # as if written before there was any field


def by_hand_lite2(classes: int) -> FasterRCNN:
    backbone = backbones.timm("tf_efficientnet_lite2", frozen_stages=2)
    pyramid = FPN(backbone.levels, channels=96)
    numbers = RPNConfig(anchor_scale=6, per_level=500, proposals=300, train_per_level=500, train_proposals=500)
    rpn = RPNHead(pyramid.levels, numbers)
    config = FastRCNNConfig(hidden=512, samples=128)
    roi = CascadeHead(pyramid.levels, classes, config=config, cascade=CascadeConfig(stages=2))
    return FasterRCNN(backbone=backbone, pyramid=pyramid, rpn=rpn, roi=roi)


def by_hand_r50(classes: int) -> FasterRCNN:
    backbone = backbones.timm("resnet50", frozen_stages=1)
    pyramid = FPN(backbone.levels, channels=256)
    rpn = RPNHead(pyramid.levels)
    return FasterRCNN(backbone=backbone, pyramid=pyramid, rpn=rpn, roi=FastRCNNHead(pyramid.levels, classes))


@pytest.mark.parametrize(
    ("name", "by_hand"), [("cascade_rcnn_lite2_fpn", by_hand_lite2), ("faster_rcnn_r50_fpn", by_hand_r50)]
)
def test_the_builder_makes_what_the_parts_make_by_hand(name, by_hand: Callable[[int], FasterRCNN]):
    made = []
    for make in (by_hand, lambda classes: build(name, classes)):
        torch.manual_seed(3)
        made.append(make(4))
    theirs, ours = made
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key
    frozen = [[key for key, each in network.named_parameters() if not each.requires_grad] for network in made]
    assert frozen[0] == frozen[1]
    assert ours.rpn.config == theirs.rpn.config
    assert ours.postprocess == preset(name).postprocess


@pytest.mark.parametrize("freeze", [True, False])
def test_torchvisions_resnets_freeze_whole_stages(freeze):
    config = BackboneConfig(library="torchvision", frozen_stages=2, freeze_batch_norm=freeze)
    backbone = make_backbone(config)
    learning = {name.split(".")[1] for name, each in backbone.named_parameters() if each.requires_grad}
    norms = [each for each in backbone.modules() if isinstance(each, nn.BatchNorm2d)]
    assert learning == {"layer3", "layer4"}
    assert all(not each.weight.requires_grad for each in norms) == freeze
    moving = {name.split(".")[1] for name, each in backbone.train().named_modules() if each in norms and each.training}
    assert moving == (set() if freeze else {"layer3", "layer4"})
    with pytest.raises(ConfigError, match="frozen_stages is 5, the backbone has 4 stages"):
        make_backbone(replace(config, frozen_stages=5))


def test_heads_say_which_network_it_is():
    assert isinstance(build_network(replace(SMALL, roi=None), 2), RPN)
    assert isinstance(build_network(replace(SMALL, rpn=None), 2), FastRCNN)
    cascade = build(replace(SMALL, cascade=CascadeConfig(stages=2)), 2)
    assert [type(each) for each in (cascade.roi, *cascade.roi.stages)] == [CascadeHead, FastRCNNHead, FastRCNNHead]
    with pytest.raises(ConfigError, match="a detector expects both rpn and roi; a spec of RPN alone"):
        build(replace(SMALL, roi=None), 2)
    with pytest.raises(ConfigError, match="a model expects a head: set rpn, roi or both"):
        ModelSpec(rpn=None, roi=None)
    with pytest.raises(ConfigError, match="cascade says how several RoI heads differ and needs roi"):
        ModelSpec(roi=None, cascade=CascadeConfig())


def test_rois_are_pooled_from_as_many_levels_as_the_backbone_has():
    spec = with_settings(SMALL, ["backbone.strides=8,16,32", "pyramid.extra_levels=2", "rpn.anchor_scale=4"])
    detector = build(spec, 1)
    assert [level.stride for level in detector.pyramid.levels] == [8, 16, 32, 64, 128]
    assert [level.stride for level in detector.roi.levels] == [8, 16, 32]


@pytest.mark.parametrize("name", PYRAMIDS)
def test_every_pyramid_is_built_by_name(name):
    spec = with_settings(SMALL, [f"pyramid.name={name}"])
    detector = build(spec, 2).eval()
    assert type(detector.pyramid) is PYRAMIDS[name]
    assert {level.channels for level in detector.pyramid.levels} == {16}
    found = detector(torch.zeros(1, 3, 64, 64), torch.tensor([[64.0, 64.0]]))
    assert found["boxes_xyxy"].shape == (1, 100, 4)
    assert ModelSpec.from_plain(json.loads(json.dumps(spec.as_plain()))) == spec


class Widened(Pyramid):
    """A pyramid that nothing else knows: one map, times a factor."""

    def __init__(self, levels, channels: int = 8, *, factor: float = 1.0, level="c4", maker=nn.Conv2d) -> None:
        super().__init__(levels, channels)
        self.factor, self.level = factor, level
        taken = next(each for each in levels if each.name == level)
        self.project = maker(taken.channels, channels, 1)
        self.levels = (LevelSpec("p4", taken.stride, channels, (4, 8, 16, 32, 64)),)

    def forward(self, bottom_up):
        return {"p4": self.factor * self.project(bottom_up[self.level])}


def test_a_new_pyramid_is_one_entry_of_the_table(monkeypatch):
    monkeypatch.setitem(pyramids.PYRAMIDS, "widened", Widened)
    spec = with_settings(specialised(SMALL, pyramid="widened"), ["pyramid.factor=2.5"])
    assert spec.pyramid == PyramidConfig(name="widened", channels=16, options={"factor": 2.5})
    assert "pyramid.factor" in fields_of(spec)
    assert "pyramid.maker" not in fields_of(spec)  # a callable does not stand in JSON
    assert spec.as_plain()["pyramid"] == {"name": "widened", "channels": 16, "factor": 2.5, "level": "c4"}
    again = ModelSpec.from_plain(json.loads(json.dumps(spec.as_plain())))
    assert again == spec
    detector = build(again, 1)
    assert detector.pyramid.factor == 2.5
    images = torch.rand(1, 3, 64, 64)
    plain = build(again, 1)
    plain.load_state_dict(detector.state_dict())
    plain.pyramid.factor = 1.0
    torch.testing.assert_close(detector.eval().features(images)["p4"], 2.5 * plain.eval().features(images)["p4"])
    for words, message in (
        (["pyramid.factr=2"], "there is no field 'pyramid.factr': did you mean pyramid.factor?"),
        (["pyramid.factor=big"], "pyramid.factor expects float, got 'big'"),
    ):
        with pytest.raises(ConfigError) as error:
            with_settings(spec, words)
        assert str(error.value) == message


def test_options_at_their_default_are_the_same_pyramid():
    assert PyramidConfig(name="bifpn", options={"repeats": 3}) == PyramidConfig(name="bifpn")
    assert PyramidConfig(name="image_pyramid", options={"scales": [1, 2]}).options == {"scales": (1.0, 2.0)}
    with pytest.raises(ConfigError, match="pyramid bifpn has no option 'repeat': did you mean repeats"):
        PyramidConfig(name="bifpn", options={"repeat": 3})
    with pytest.raises(ConfigError, match="there is no pyramid named 'bipfn': did you mean bifpn"):
        PyramidConfig(name="bipfn")
    made = make_pyramid(PyramidConfig(name="bifpn", channels=4, options={"repeats": 2}), LEVELS)
    assert len(made.rounds) == 2


def test_settings_reach_every_part():
    words = ["rpn.anchor_scale=6", "cascade.stages=2", "pyramid.repeats=1", "pyramid.name=bifpn", "pyramid.channels=8"]
    words += ["preprocess.short_side=1000", "preprocess.long_side=1600", "postprocess.detections=7"]
    spec = with_settings(preset("faster_rcnn_r50_fpn"), [*words, "backbone.strides=8,16"])
    assert (spec.rpn.anchor_scale, spec.cascade) == (6.0, CascadeConfig(stages=2))
    assert spec.pyramid == PyramidConfig(name="bifpn", channels=8, options={"repeats": 1})
    assert (spec.preprocess.short_side, spec.preprocess.long_side) == (1000, 1600)
    assert (spec.postprocess.detections, spec.backbone.strides) == (7, (8, 16))
    assert with_settings(spec, ["cascade=none", "backbone.strides=none"]).cascade is None


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"backbone": "convnxt_tiny"}, "timm has no model named 'convnxt_tiny': did you mean convnext_tiny?"),
        ({"pyramid": "bfpn"}, "there is no pyramid named 'bfpn': did you mean bifpn?"),
        ({"head": "cascad"}, "there is no head named 'cascad': did you mean cascade?"),
        ({"channels": 0}, "pyramid.channels must be 1 or more, got 0"),
    ],
)
def test_unknown_parts_are_refused_with_the_nearest_name(parts, message):
    with pytest.raises(ConfigError) as error:
        specialised(ModelSpec(), **parts)
    assert str(error.value) == message


def test_shorthands_bring_what_goes_with_them():
    start = preset("cascade_rcnn_lite2_fpn")
    assert specialised(start) == start
    assert specialised(start, backbone=start.backbone.name, pyramid="fpn", head="cascade") == start
    made = specialised(start, backbone="convnext_tiny", pyramid="bifpn", channels=128, head="fast_rcnn")
    assert str(made) == "faster_rcnn on convnext_tiny + bifpn"
    assert made.backbone == BackboneConfig(name="convnext_tiny", frozen_stages=1)
    assert made.preprocess.mean == (0.485, 0.456, 0.406)  # timm's, not EfficientNet-Lite's 0.5
    assert made.preprocess.short_side == start.preprocess.short_side
    assert made.rpn == start.rpn
    assert specialised(ModelSpec(), head="cascade").cascade == CascadeConfig()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"library": "tim"}, "there is no library of backbones named 'tim': did you mean timm?"),
        (
            {"library": "torchvision", "name": "resnet5"},
            "'resnet5' is not among those of torchvision: did you mean resn",
        ),
        ({"library": "torchvision", "strides": (8,)}, "are for backbone.library=timm"),
        ({"stride_in_1x1": True}, "is for backbone.library=torchvision"),
        ({"frozen_stages": -1}, "must be 0 or more, got -1"),
    ],
)
def test_backbones_that_do_not_exist_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        BackboneConfig(**fields)


def test_nothing_is_downloaded_for_torchvisions_resnets():
    with pytest.raises(ConfigError, match="has no weights to download here: start from a file"):
        make_backbone(BackboneConfig(library="torchvision"), pretrained=True)


def test_unknown_presets_are_refused_with_the_nearest():
    for wrong, near in (("faster_rcnn_lite_fpn", "faster_rcnn_lite0_fpn"), ("detectron_r50_fpn", "detectron2_r50_fpn")):
        with pytest.raises(ConfigError, match=f"there is no model named '{wrong}': did you mean {near}?"):
            build(wrong, 1)
    with pytest.raises(ConfigError, match="the models are faster_rcnn_r50_fpn, "):
        preset("x")


def test_names_of_specs():
    assert name_of(with_settings(PRESETS["cascade_rcnn_lite2_fpn"], ["preprocess.short_side=600"])) == (
        "cascade_rcnn_lite2_fpn"
    )
    assert name_of(replace(ModelSpec(), rpn=RPNConfig(anchor_scale=6))) == "faster_rcnn on resnet50 + fpn"
    torchvision = replace(PRESETS["torchvision_r50_fpn"], roi=FastRCNNConfig(hidden=8))
    assert name_of(torchvision) == "faster_rcnn on resnet50 (torchvision) + fpn"


def test_costs_are_those_of_the_real_network():
    from torch.utils.flop_counter import FlopCounterMode

    costs = model_costs(SMALL, 3, size_hw=(64, 96))
    assert model_costs(SMALL, 3).size_hw == (64, 1344)  # 64 and 1333 pixels, padded
    detector = build(SMALL, 3).eval()
    assert costs.parameters == sum(each.numel() for each in detector.parameters())
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        detector(torch.rand(1, 3, 64, 96), torch.tensor([[64.0, 96.0]]))
    assert costs.gmacs == pytest.approx(counter.get_total_flops() / 2e9, rel=0.02)
    assert costs.gmacs > 0.05
