"""Checkpoints of torchvision and detectron2, into fpnkit and back: the same numbers on seeded weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from theirs import BLOCKS, Detectron2, assert_equal, torchvision_model
from torch import Tensor
from torchvision.models import detection

from fpnkit.detectors import RPN
from fpnkit.errors import CheckpointError, ConfigError
from fpnkit.zoo import build, from_state, from_torchvision, to_state
from fpnkit.zoo.interop import coco_classes

IMAGES = 2, 3, 96, 128


@pytest.mark.parametrize("depth", BLOCKS)
def test_torchvision_there_and_back(depth):
    model = torchvision_model(depth)
    name, detector = from_state(model.state_dict(), "torchvision")
    assert name == f"torchvision_{depth}_fpn"
    reference = from_torchvision(model)  # which finds what torchvision finds
    ours = {key: value for key, value in detector.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert_equal(ours, reference.state_dict())
    assert (detector.rpn.config, detector.roi.config) == (reference.rpn.config, reference.roi.config)
    back, there = to_state(detector, name), dict(model.state_dict())
    there["roi_heads.box_predictor.bbox_pred.weight"][:4] = 0  # a box of the background is read by nobody
    there["roi_heads.box_predictor.bbox_pred.bias"][:4] = 0
    assert_equal(back, there)
    torchvision_model(depth).load_state_dict(back)


@torch.no_grad()
def test_torchvision_norms_without_epsilon_compute_the_same():
    model = torchvision_model("r50", eps=0.0)
    state = model.state_dict()
    for name in state:
        if name.endswith("running_var"):
            state[name] *= 1e-4  # where an epsilon of 1e-5 is large
        if name.endswith("running_mean"):
            state[name] *= 1e-2
        if "bn" in name and name.endswith("weight"):
            state[name] *= 1e-2
    model.load_state_dict(state)
    images = torch.randn(IMAGES)
    wanted = model.backbone(images)
    for eps, same in ((1e-5, False), (0.0, True)):
        _, detector = from_state(state, "torchvision", norm_eps=eps)
        found = detector.features(images)
        for k in range(4):
            largest = wanted[str(k)].abs().max()
            assert ((found[f"p{2 + k}"] - wanted[str(k)]).abs().max() < 1e-3 * largest) == same
    back = to_state(detector, "torchvision_r50_fpn", norm_eps=1e-5)
    wanted = state["backbone.body.bn1.weight"] * (1 + 1e-5 / state["backbone.body.bn1.running_var"]).sqrt()
    torch.testing.assert_close(back["backbone.body.bn1.weight"], wanted)


def test_torchvision_names_of_before_0_13():
    state = torchvision_model("r50").state_dict()
    old = {}
    for name, value in state.items():
        name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for blocks in ("inner_blocks", "layer_blocks"):
            for number in range(4):
                name = name.replace(f"{blocks}.{number}.0.", f"{blocks}.{number}.")
        old[name] = value
    assert set(old) != set(state)
    assert_equal(from_state(old, "torchvision")[1].state_dict(), from_state(state, "torchvision")[1].state_dict())


@torch.no_grad()
def test_numbers_that_coco_never_used_are_left_behind():
    model = torchvision_model("r50", classes=90)
    _, detector = from_state(model.state_dict(), "torchvision")
    assert detector.num_classes == 80
    names = detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    theirs = model.roi_heads.box_predictor
    for label, name in enumerate(coco_classes()):
        row = names.index(name)
        assert torch.equal(detector.roi.scores.weight[label], theirs.cls_score.weight[row])
        assert torch.equal(detector.roi.deltas.bias[4 * label :][:4], theirs.bbox_pred.bias[4 * row :][:4])
    assert torch.equal(detector.roi.scores.weight[80], theirs.cls_score.weight[0])


@pytest.mark.parametrize(("depth", "rgb"), [("r50", False), ("r50", True), ("r101", False), ("r101", True)])
@torch.no_grad()
def test_detectron2_there_and_back(depth, rgb):
    theirs = Detectron2(BLOCKS[depth], stride_in_1x1=not rgb)
    name, detector = from_state(theirs.state, "detectron2", rgb=rgb)
    assert name == f"detectron2_{depth}_fpn{'_rgb' * rgb}"
    assert_equal(to_state(detector, name), theirs.state)

    images = torch.randn(IMAGES)
    wanted, found = theirs.features(images if rgb else images.flip(1)), detector.features(images)
    for level, feature in wanted.items():
        close(found[level], feature)
    logits, deltas = detector.rpn(found)
    for index, feature in enumerate(wanted.values()):
        place = ("p5", "p4", "p3", "p2", "p6").index(list(wanted)[index])
        level = [each.name for each in detector.rpn.levels].index(("p5", "p4", "p3", "p2", "p6")[place])
        for ours, reference in zip((logits[level], deltas[level]), theirs.rpn(feature), strict=True):
            close(ours.reshape(reference.shape), reference)
    rois = torch.tensor([[4.0, 5.0, 60.0, 70.0], [10.0, 12.0, 90.0, 50.0]])  # eq. 1: P2
    scores, boxes, _ = detector.roi({level: each[:1] for level, each in found.items()}, rois[None])
    for ours, reference in zip((scores[0], boxes[0].flatten(1)), theirs.boxes(wanted["p2"][:1], 4, rois), strict=True):
        close(ours, reference)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


def test_detectron2_anchors_start_at_the_corner_of_the_image():
    """`DefaultAnchorGenerator` with offset 0: centred on multiples of the stride, 32 to 512 pixels."""
    detector = build("detectron2_r50_fpn", 1)
    maps = {f"p{k}": torch.zeros(1, 256, 128 // 2**k, 128 // 2**k) for k in range(2, 7)}
    anchors = detector.rpn.anchors(maps, (128, 128))
    for level, size in zip(detector.rpn.levels, (32, 64, 128, 256, 512), strict=True):
        first = anchors[detector.rpn.levels.index(level)][:3]
        torch.testing.assert_close((first[:, :2] + first[:, 2:]) / 2, torch.zeros(3, 2))
        sides = first[:, 2:] - first[:, :2]
        torch.testing.assert_close(sides[:, 1] / sides[:, 0], torch.tensor([0.5, 1.0, 2.0]))
        torch.testing.assert_close(sides.prod(dim=1), torch.full((3,), float(size**2)))


@torch.no_grad()
def test_an_rpn_alone():
    theirs = Detectron2(BLOCKS["r50"], stride_in_1x1=True, boxes=False)
    name, detector = from_state(theirs.state, "detectron2")
    assert isinstance(detector, RPN)
    assert_equal(to_state(detector, name), theirs.state)
    images = torch.randn(IMAGES)
    close(detector.features(images)["p3"], theirs.features(images.flip(1))["p3"])

    state = {k: v for k, v in torchvision_model("r101").state_dict().items() if not k.startswith("roi_heads")}
    name, detector = from_state(state, "torchvision")
    assert isinstance(detector, RPN)
    assert_equal(to_state(detector, name), state)


def without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (without("backbone.fpn.layer_blocks.0.0.bias"), r"lacks backbone\.fpn\.layer_blocks\.0\.0\.bias"),
        (
            lambda state: state | {"roi_heads.mask_head.0.weight": torch.zeros(1)},
            "roi_heads.mask_head.0.weight besides",
        ),
        (lambda state: {}, "its fourth stage has 0 blocks, expected 6 or 23"),
        (lambda state: state | {"rpn.head.cls_logits.weight": torch.zeros(3, 9, 1, 1)}, r"cls_logits.weight has shape"),
        (lambda state: state | {"rpn.head.cls_logits.bias": torch.full((3,), torch.nan)}, "not finite"),
    ],
)
def test_other_models_are_refused_by_name(change, expected):
    with pytest.raises(CheckpointError, match=expected):
        from_state(change(torchvision_model("r50").state_dict()), "torchvision")


def test_models_that_no_other_library_has_are_refused():
    with pytest.raises(ConfigError, match="faster_rcnn_r50_fpn exists in no other library; those that do are torchv"):
        to_state(build("faster_rcnn_r50_fpn", 1), "faster_rcnn_r50_fpn")
