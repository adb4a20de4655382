"""A converted torchvision Faster R-CNN finds what the original finds: same images in, same boxes out, end to end.

The weights are random, made so that they predict in earnest: batch norms hold the statistics of a photograph, and the
four prediction layers are scaled to spread over classes, scores, anchors and levels. Residual branches are kept
small, as training makes them: at full size a random ResNet amplifies rounding errors a thousandfold.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import skimage
import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import MultiScaleRoIAlign

from fpnkit.data.preprocess import Preprocess, PreprocessConfig
from fpnkit.detectors import FasterRCNN, Postprocess
from fpnkit.errors import ConfigError
from fpnkit.heads import FastRCNNConfig, RPNConfig
from fpnkit.ops.boxes import iou
from fpnkit.structures import Detections
from fpnkit.zoo import from_torchvision, torchvision_preprocess

SMALL = {
    "min_size": 256,
    "max_size": 420,
    "rpn_pre_nms_top_n_test": 60,
    "rpn_post_nms_top_n_test": 200,
    "box_detections_per_img": 200,
}
"""Few proposals a level, so that detections come from all levels; fewer in all than survive, so that the cut shows."""

PHOTOS = {
    "square": ("astronaut", 512, 512),
    "landscape": ("coffee", 400, 600),
    "odd width": ("chelsea", 300, 451),
    "portrait": ("rocket", 427, 333),
    "enlarged up to the long side": ("coffee", 97, 401),
    "odd and small": ("chelsea", 151, 163),
}


def photo(name: str, height: int, width: int) -> Tensor:
    """(3, height, width) uint8, the left top of a photograph of scikit-image."""
    pixels = getattr(skimage.data, name)()[:height, :width]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()


PARITY = 0.995
"""Least share of detections that match."""


@cache
def resnet50_pair() -> tuple[nn.Module, FasterRCNN]:
    """The torchvision model of `SMALL` and its conversion."""
    torch.manual_seed(0)
    model = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5, **SMALL)
    make_predict(model)
    return model, from_torchvision(model)


@torch.no_grad()
def make_predict(model: nn.Module) -> None:
    """Give a random torchvision detector predictions that spread; it ends in inference mode."""
    model.eval()
    image = photo(*PHOTOS["square"]) / 255
    for name, module in model.backbone.body.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            module.weight.fill_(0.2 if name.endswith("bn3") else 1.0)
    model.backbone.train()
    model.backbone(model.transform([image])[0].tensors)
    model.eval()
    for block in model.backbone.fpn.layer_blocks:
        standardise(block[0], 1.0, model, image)
    rpn, roi = model.rpn.head, model.roi_heads.box_predictor
    for layer, std in ((rpn.cls_logits, 2.0), (rpn.bbox_pred, 0.3), (roi.cls_score, 2.0), (roi.bbox_pred, 1.0)):
        standardise(layer, std, model, image)


def standardise(layer: nn.Module, std: float, model: nn.Module, image: Tensor) -> None:
    """Scale and shift a layer so that each of its outputs has mean 0 and this deviation over an image."""
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _, __, output: seen.append(output.transpose(0, 1).flatten(1)))
    model([image])
    hook.remove()
    outputs = torch.cat(seen, dim=1)
    scale = std / outputs.std(dim=1)
    layer.bias.copy_((layer.bias - outputs.mean(dim=1)) * scale)
    layer.weight.mul_(scale.reshape(-1, *[1] * (layer.weight.ndim - 1)))


@torch.no_grad()
def found_by_torchvision(model: nn.Module, images: Sequence[Tensor]) -> list[Detections]:
    """Its answers in pixels of the network with our labels; torchvision does not tell levels.

    It gets images that we have resized, for it resizes to fractions of pixel values and we to whole ones.
    """
    preprocess = Preprocess(torchvision_preprocess(model))
    answers = model([preprocess.resize(image) / 255 for image in images])
    return [
        Detections(
            boxes_xyxy=each["boxes"],
            scores=each["scores"],
            labels=each["labels"] - 1,
            valid=torch.ones_like(each["labels"], dtype=torch.bool),
        )
        for each in answers
    ]


def found_by_us(detector: FasterRCNN, model: nn.Module, images: Sequence[Tensor]) -> list[Detections]:
    """Our answers in pixels of the network."""
    return detector.detect(Preprocess(torchvision_preprocess(model))(images))


def match_rate(found: Detections, reference: Detections) -> float:
    """Share of detections that match one of the reference: same label, IoU over 0.99, scores within 0.001."""
    same_label = found.labels[:, None] == reference.labels
    same_box = iou(found.boxes_xyxy, reference.boxes_xyxy) > 0.99
    same_score = (found.scores[:, None] - reference.scores).abs() < 1e-3
    return (same_label & same_box & same_score).any(dim=1).double().mean().item()


def both_ways(ours: Detections, theirs: Detections) -> float:
    """The lower of the two match rates."""
    return min(match_rate(ours, theirs), match_rate(theirs, ours))


def assert_worth_comparing(found: Detections) -> None:
    """Many detections of most classes, with scores from all over, pooled from several pyramid levels."""
    assert len(found) >= 100
    assert (found.labels.bincount(minlength=4) >= 5).sum() >= 3
    assert found.scores.std() > 0.1
    assert len(found.levels.unique()) >= 2


@pytest.mark.parametrize("which", PHOTOS)
def test_prepares_images_as_torchvision_does(which: str) -> None:
    model, _ = resnet50_pair()
    image = photo(*PHOTOS[which])
    ours, (theirs, _) = Preprocess(torchvision_preprocess(model))([image]), model.transform([image / 255])
    assert ours.sizes_hw.tolist() == [list(size) for size in theirs.image_sizes]
    rounding = 0.5 / 255 / min(model.transform.image_std)
    torch.testing.assert_close(ours.images, theirs.tensors, atol=rounding + 1e-5, rtol=0)


def test_resized_sides_differ_by_a_pixel_at_most() -> None:
    transform = detection.transform.GeneralizedRCNNTransform(800, 1333, [0.0] * 3, [1.0] * 3).eval()
    preprocess = Preprocess(PreprocessConfig(short_side=800, long_side=1333, mean=(0.0,) * 3, std=(1.0,) * 3))
    sizes = [(height, width) for height in range(100, 1000, 97) for width in range(100, 1500, 83)]
    wrong = 0
    for size in sizes:
        theirs = transform.resize(torch.empty(3, *size, device="meta"))[0].shape[1:]
        difference = [our - their for our, their in zip(preprocess.resized_hw(*size), theirs, strict=True)]
        assert set(difference) <= {0, 1}, f"{size} becomes {preprocess.resized_hw(*size)}, in torchvision {theirs}"
        wrong += any(difference)
    assert wrong < 0.1 * len(sizes)


@pytest.mark.parametrize("which", PHOTOS)
def test_finds_what_torchvision_finds(which: str) -> None:
    model, detector = resnet50_pair()
    assert_same_findings(model, detector, [photo(*PHOTOS[which])])


def test_finds_the_same_in_a_batch_of_two_sizes() -> None:
    model, detector = resnet50_pair()
    assert_same_findings(model, detector, [photo(*PHOTOS["odd width"]), photo(*PHOTOS["portrait"])])


def assert_same_findings(model: nn.Module, detector: FasterRCNN, images: Sequence[Tensor]) -> None:
    """At least 99.5 % of the detections of each image match, both ways; prints the share."""
    all_ours, all_theirs = found_by_us(detector, model, images), found_by_torchvision(model, images)
    for image, ours, theirs in zip(images, all_ours, all_theirs, strict=True):
        rate = both_ways(ours, theirs)
        print(f"{image.shape[1]} x {image.shape[2]}: {rate:.2%} of {len(theirs)} detections match")
        assert_worth_comparing(ours)
        assert rate >= PARITY


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("rpn", {"anchor_offset": 0.5}),
        ("rpn", {"round_anchors": False}),
        ("rpn", {"strides_from_image": False}),
        ("rpn", {"nms_iou": 0.6}),
        ("roi", {"aligned": True}),
        ("roi", {"sampling_ratio": 1}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else value,
)
def test_every_setting_taken_from_torchvision_matters(part: str, change: dict[str, object]) -> None:
    model, detector = resnet50_pair()
    changed = copy.deepcopy(detector)
    head = getattr(changed, part)
    head.config = replace(head.config, **change)
    images = [photo(*PHOTOS["portrait"])]
    assert both_ways(found_by_us(changed, model, images)[0], found_by_torchvision(model, images)[0]) < PARITY


def test_converts_another_resnet_with_fewer_levels() -> None:
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, returned_layers=[2, 3, 4])
    anchors = AnchorGenerator(((48,), (96,), (192,), (384,)), ((0.5, 1.0),) * 4)
    pool = MultiScaleRoIAlign(["0", "1", "2"], output_size=5, sampling_ratio=0)
    numbers = {"image_mean": [0.4, 0.5, 0.6], "bbox_reg_weights": (20.0, 18.0, 10.0, 8.0)}
    model = detection.FasterRCNN(backbone, 5, rpn_anchor_generator=anchors, box_roi_pool=pool, **numbers, **SMALL)
    make_predict(model)
    detector = from_torchvision(model)
    assert [level.name for level in detector.roi.levels] == ["p3", "p4", "p5"]
    assert_same_findings(model, detector, [photo(*PHOTOS["landscape"])])


@pytest.mark.slow
def test_finds_what_torchvision_finds_at_full_size() -> None:
    torch.manual_seed(0)
    model = detection.fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=5, box_detections_per_img=500
    )
    make_predict(model)
    detector = from_torchvision(model)
    for which in ("landscape", "portrait"):
        assert_same_findings(model, detector, [photo(*PHOTOS[which])])


def small_torchvision_model(**settings) -> nn.Module:
    """A Faster R-CNN on ResNet-18, quick to make."""
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=2)
    return detection.FasterRCNN(backbone, **{"num_classes": 31, **settings})


def test_takes_the_numbers_of_the_model() -> None:
    model = small_torchvision_model(
        min_size=(320, 480),
        max_size=640,
        image_mean=[0.1, 0.2, 0.3],
        image_std=[0.4, 0.5, 0.6],
        rpn_pre_nms_top_n_train=11,
        rpn_pre_nms_top_n_test=12,
        rpn_post_nms_top_n_train=13,
        rpn_post_nms_top_n_test=14,
        rpn_nms_thresh=0.61,
        rpn_fg_iou_thresh=0.62,
        rpn_bg_iou_thresh=0.22,
        rpn_batch_size_per_image=15,
        rpn_positive_fraction=0.41,
        box_score_thresh=0.125,
        box_nms_thresh=0.42,
        box_detections_per_img=16,
        box_fg_iou_thresh=0.63,
        box_bg_iou_thresh=0.63,
        box_batch_size_per_image=17,
        box_positive_fraction=0.31,
        bbox_reg_weights=(12.0, 11.0, 6.0, 4.0),
    )
    detector = from_torchvision(model)
    assert detector.num_classes == 30
    assert detector.rpn.config == RPNConfig(
        per_level=12,
        proposals=14,
        train_per_level=11,
        train_proposals=13,
        nms_iou=0.61,
        positive_iou=0.62,
        negative_iou=0.22,
        samples=15,
        positive_fraction=0.41,
        anchor_offset=0.0,
        round_anchors=True,
        strides_from_image=True,
    )
    assert detector.roi.config == FastRCNNConfig(
        aligned=False,
        positive_iou=0.63,
        samples=17,
        positive_fraction=0.31,
        delta_weights=(12.0, 11.0, 6.0, 4.0),
    )
    assert detector.postprocess == Postprocess(min_score=0.125, nms_iou=0.42, detections=16)
    assert torchvision_preprocess(model) == PreprocessConfig(
        short_side=480, long_side=640, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), antialias=False
    )


def test_copies_weights_and_leaves_the_model_alone() -> None:
    model = small_torchvision_model()
    before = copy.deepcopy(model.state_dict())
    detector = from_torchvision(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    ours = copy.deepcopy(detector.state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for name, value in detector.state_dict().items():
        assert torch.equal(value, ours[name]), name


def test_keeps_mode_and_frozen_layers() -> None:
    model = small_torchvision_model()
    assert from_torchvision(model).training
    detector = from_torchvision(model.eval())
    assert not detector.training
    trainable = {name for name, parameter in model.backbone.body.named_parameters() if parameter.requires_grad}
    ours = {name for name, parameter in detector.backbone.body.named_parameters() if parameter.requires_grad}
    assert ours == trainable
    assert {name.split(".")[0] for name in ours} == {"layer3", "layer4"}


def meta(make, **settings) -> nn.Module:
    """A torchvision detector without weights, which takes no time to make."""
    with torch.device("meta"):
        return make(weights=None, weights_backbone=None, **settings)


@pytest.mark.parametrize(
    ("make", "settings", "expected"),
    [
        (detection.fasterrcnn_resnet50_fpn_v2, {}, "box_head of type TwoMLPHead, got .*FastRCNNConvFCHead"),
        (detection.fasterrcnn_mobilenet_v3_large_fpn, {}, "one anchor size a level"),
        (detection.maskrcnn_resnet50_fpn, {}, "boxes only, got a mask or keypoint head"),
        (detection.retinanet_resnet50_fpn, {}, "model of type FasterRCNN, got .*RetinaNet"),
        (detection.fasterrcnn_resnet50_fpn, {"rpn_score_thresh": 0.3}, "no threshold on objectness"),
        (detection.fasterrcnn_resnet50_fpn, {"box_bg_iou_thresh": 0.4}, "equal box_fg_iou_thresh and box_bg_iou"),
        (
            detection.fasterrcnn_resnet50_fpn,
            {"rpn_anchor_generator": AnchorGenerator(((32,), (64,), (128,), (256,), (300,)), ((0.5, 1.0, 2.0),) * 5)},
            "anchor sizes in proportion to strides",
        ),
    ],
)
def test_refuses_what_it_cannot_convert(make, settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        from_torchvision(meta(make, **settings))


@pytest.mark.parametrize("convert", [from_torchvision, torchvision_preprocess])
def test_refuses_any_other_module(convert) -> None:
    with pytest.raises(ConfigError, match=r"model of type FasterRCNN, got torch\.nn\.modules\.linear\.Linear"):
        convert(nn.Linear(1, 1))


def test_preprocess_refuses_one_size_for_all() -> None:
    model = small_torchvision_model(fixed_size=(320, 320))
    with pytest.raises(ConfigError, match="images resized by their sides, got fixed_size"):
        torchvision_preprocess(model)
