"""One contract for every pyramid on every backbone: published levels are what comes out, detectors stand on them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from fpnkit import backbones
from fpnkit.backbones import Backbone, wrap
from fpnkit.detectors import RPN, FasterRCNN, FastRCNN, Postprocess
from fpnkit.errors import ConfigError, ShapeError
from fpnkit.heads import FastRCNNConfig, FastRCNNHead, RPNConfig, RPNHead
from fpnkit.pyramids import (
    FPN,
    PAN,
    BiFPN,
    FeatureHierarchy,
    FinestLevel,
    ImagePyramid,
    Pyramid,
    SingleMap,
    TopDownOnly,
)
from fpnkit.structures import ImageBatch, LevelSpec, Proposals, Targets

WIDTH, CLASSES = 8, 3
PYRAMIDS: dict[str, Callable[..., Pyramid]] = {
    "FPN": FPN,
    "FPN, residual": partial(FPN, connection="residual"),
    "FPN, batch norm": partial(FPN, norm=nn.BatchNorm2d),
    "FPN, P6 and P7 of C5": partial(FPN, extra_levels=2, extra="conv_c5"),
    "FPN, P6 and P7 of P5": partial(FPN, extra_levels=2, extra="conv_p5"),
    "ImagePyramid": ImagePyramid,
    "SingleMap": SingleMap,
    "FeatureHierarchy": FeatureHierarchy,
    "TopDownOnly": TopDownOnly,
    "FinestLevel": FinestLevel,
    "PAN": PAN,
    "BiFPN": partial(BiFPN, repeats=2),
}
KINDS = {type(make([LevelSpec("c2", 4, 3), LevelSpec("c3", 8, 5)], 4)).__name__: make for make in PYRAMIDS.values()}
LEVELS = (LevelSpec("c2", 4, 3), LevelSpec("c3", 8, 5))
RPN_NUMBERS = RPNConfig(per_level=30, proposals=20, train_per_level=30, train_proposals=25, samples=32)
ROI_NUMBERS = FastRCNNConfig(hidden=16, samples=16)
POSTPROCESS = Postprocess(detections=10, min_score=0.0)


class Maps(nn.Module):
    """A map of ceil(size / stride) cells for each stride, straight from the image."""

    def __init__(self, *strides: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(3, 4 + i, 2 * (stride // 2) + 1, stride=stride, padding=stride // 2)
            for i, stride in enumerate(strides)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        return [torch.relu(conv(images)) for conv in self.convs]


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "own": lambda: wrap(Maps(4, 8, 16, 32)),
    "own 3, 9, 43": lambda: wrap(Maps(3, 9, 43)),
    "own 4, 5, 8": lambda: wrap(Maps(4, 5, 8)),
    "resnet18": partial(backbones.timm, "resnet18"),
    "lite0": partial(backbones.timm, "tf_efficientnet_lite0"),
}
OWN = ["own", "own 3, 9, 43"]
FEW = [*OWN, "resnet18"]


@cache
def backbone_of(name: str) -> Backbone:
    torch.manual_seed(0)
    return BACKBONES[name]().eval()


@cache
def untouched_pyramid(kind: str, on: str) -> Pyramid:
    torch.manual_seed(0)
    return PYRAMIDS[kind](backbone_of(on).levels, WIDTH).eval()


@pytest.fixture(params=PYRAMIDS)
def kind(request) -> str:
    return request.param


@pytest.fixture(params=BACKBONES)
def on(request) -> str:
    return request.param


@pytest.fixture
def backbone(on) -> Backbone:
    return backbone_of(on)


@pytest.fixture
def pyramid(kind, on) -> Pyramid:
    return copy.deepcopy(untouched_pyramid(kind, on))


def clones(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in tensors.items()}


def assert_levels_hold(pyramid: Pyramid, features: dict[str, Tensor], images: Tensor) -> None:
    """Names, widths and sizes are as published; a level above the backbone's has half the cells of the one below."""
    assert list(features) == [level.name for level in pyramid.levels]
    strides = [level.stride for level in pyramid.levels]
    assert strides == sorted(set(strides))
    below = None
    for level in pyramid.levels:
        count, channels, *cells = features[level.name].shape
        assert (count, channels) == (images.shape[0], level.channels)
        assert level.channels == WIDTH
        for pixels, side in zip(images.shape[-2:], cells, strict=True):
            assert max(1, math.floor(pixels / level.stride)) <= side <= math.ceil(pixels / level.stride)
        if below and level.stride > pyramid.in_levels[-1].stride and not isinstance(pyramid, ImagePyramid):
            assert cells == [-(-side // 2) for side in below]
        below = cells
    assert all(each.isfinite().all() for each in features.values())


@torch.no_grad()
def test_published_levels_are_what_comes_out(pyramid, backbone):
    for size in [(64, 96), (75, 53), (33, 1), (1, 1)]:
        images = torch.randn(1, 3, *size)
        assert_levels_hold(pyramid, pyramid.features(backbone, images), images)


@torch.no_grad()
@pytest.mark.parametrize("on", FEW)
def test_a_batch_of_two_equals_two_singles(pyramid, backbone):
    images = torch.randn(2, 3, 64, 50)
    both = pyramid.features(backbone, images)
    alone = [pyramid.features(backbone, image[None]) for image in images]
    for name, each in both.items():
        wanted = torch.cat([one[name] for one in alone])
        torch.testing.assert_close(each, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("on", OWN)
def test_gradients_reach_every_parameter_and_the_images(pyramid, backbone):
    for name, parameter in pyramid.named_parameters():
        if name.endswith("gain"):
            nn.init.ones_(parameter)  # zero at the start: the block behind it learns from the second step on
    images = torch.randn(2, 3, 64, 96, requires_grad=True)
    features = pyramid.train().features(backbone, images)
    sum((each * torch.randn_like(each)).sum() for each in features.values()).backward()
    for name, each in [*pyramid.named_parameters(), ("images", images)]:
        assert each.grad is not None, name
        assert each.grad.isfinite().all(), name
        assert each.grad.any(), name


@pytest.mark.parametrize("on", ["own"])
def test_every_level_has_a_gradient_of_its_own(pyramid, backbone):
    images = torch.randn(2, 3, 64, 96, requires_grad=True)
    for each in pyramid.features(backbone, images).values():
        (grad,) = torch.autograd.grad((each * torch.randn_like(each)).sum(), images, retain_graph=True)
        assert grad.any()


@torch.no_grad()
@pytest.mark.parametrize("on", FEW)
def test_maps_and_images_are_not_changed_and_calls_repeat(pyramid, backbone):
    images = torch.randn(1, 3, 64, 96)
    image, maps = images.clone(), backbone(images)
    before = clones(maps)
    first, again = pyramid(maps), pyramid(maps)
    assert all(torch.equal(maps[name], before[name]) for name in before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    pyramid.features(backbone, images)
    assert torch.equal(images, image)


@torch.no_grad()
@pytest.mark.parametrize("on", ["own"])
def test_saved_weights_give_the_same_maps(pyramid, backbone, kind, tmp_path):
    other = PYRAMIDS[kind](backbone.levels, WIDTH).eval()
    for value in pyramid.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.1, 1)
    torch.save(pyramid.state_dict(), tmp_path / "pyramid.pt")
    images = torch.randn(1, 3, 40, 30)
    wanted = pyramid.features(backbone, images)
    assert not any(torch.equal(each, wanted[name]) for name, each in other.features(backbone, images).items())
    other.load_state_dict(torch.load(tmp_path / "pyramid.pt", weights_only=True))
    assert all(torch.equal(each, wanted[name]) for name, each in other.features(backbone, images).items())


@torch.no_grad()
@pytest.mark.parametrize("on", ["own"])
def test_one_exported_graph_serves_any_batch_height_and_width(pyramid, backbone):
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.pyramid = backbone, pyramid

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return self.pyramid.features(self.backbone, images)

    batch, height, width = (
        Dim("batch", min=1, max=64),
        Dim("height", min=129, max=2048),
        Dim("width", min=129, max=2048),
    )
    dynamic = ({0: batch, 2: height, 3: width},)  # 129, because sides of one cell are taken for constants
    graph = torch.export.export(Whole(), (torch.randn(2, 3, 130, 170),), dynamic_shapes=dynamic).module()
    for size in [(1, 3, 160, 129), (3, 3, 161, 259)]:
        images = torch.randn(size)
        for ours, wanted in zip(graph(images).values(), pyramid.features(backbone, images).values(), strict=True):
            torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize("name", KINDS)
def test_a_missing_map_is_named(name):
    with pytest.raises(ShapeError) as error:
        KINDS[name](LEVELS, 4)({"c2": torch.zeros(1, 3, 8, 8)})
    assert str(error.value) == f"{name} expects a map c3, got ['c2']: pass the backbone's whole output"


@pytest.mark.parametrize("name", KINDS)
def test_other_channels_than_promised_are_refused(name):
    with pytest.raises(ShapeError) as error:
        KINDS[name](LEVELS, 4)({"c2": torch.zeros(1, 3, 8, 8), "c3": torch.zeros(1, 7, 4, 4)})
    wanted = f"pyramid level p3 expects 5 channels, backbone level c3 has 7: pass backbone.levels to {name}(...)"
    assert str(error.value) == wanted


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("levels", [(), LEVELS[::-1], LEVELS[:1] * 2], ids=["none", "coarse first", "twice"])
def test_levels_must_go_from_fine_to_coarse(name, levels):
    strides = [level.stride for level in levels]
    with pytest.raises(ConfigError) as error:
        KINDS[name](levels, 4)
    assert str(error.value) == f"{name} expects levels from fine to coarse, got strides {strides}: pass backbone.levels"


@pytest.mark.parametrize("name", KINDS)
def test_a_pyramid_needs_channels(name):
    with pytest.raises(ConfigError) as error:
        KINDS[name](LEVELS, 0)
    assert str(error.value) == f"{name} expects channels of 1 or more, got 0"


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"ImagePyramid"}))
def test_extra_levels_cannot_be_negative_and_need_a_number_to_count_on_from(name):
    with pytest.raises(ConfigError, match="a pyramid expects 0 or more extra_levels, got -1"):
        KINDS[name](LEVELS, 4, extra_levels=-1)
    with pytest.raises(ConfigError, match=r"expects a name like c5, got 'top': name the level so, or pass extra_level"):
        KINDS[name]([LEVELS[0], LevelSpec("top", 32, 4)], 4, extra_levels=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(FPN, connection="conf"), "connection must be one of conv, residual, got 'conf'"),
        (partial(FPN, extra="pool"), "extra must be one of subsample, conv_c5, conv_p5, got 'pool'"),
        (partial(SingleMap, level="c7"), "there is no level 'c7': the backbone gives c2, c3"),
        (partial(ImagePyramid, level="p2"), "there is no level 'p2': the backbone gives c2, c3"),
        (partial(ImagePyramid, scales=()), r"ImagePyramid expects scales above 0, got \(\)"),
        (partial(ImagePyramid, scales=(1, 0)), r"ImagePyramid expects scales above 0, got \(1, 0\)"),
        (
            partial(ImagePyramid, scales=(1.0, 1.01)),
            r"scales of different strides, but \(1.0, 1.01\) of c3 \(stride 8\) give \[8, 8\]: leave one out",
        ),
        (partial(BiFPN, repeats=0), "BiFPN expects two levels or more and repeats of 1 or more, got 3 and 0"),
    ],
)
def test_unknown_options_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make(LEVELS, 4)


def test_bifpn_needs_two_levels():
    assert len(BiFPN(LEVELS[:1], 4).levels) == 2
    with pytest.raises(ConfigError, match="BiFPN expects two levels or more and repeats of 1 or more, got 1 and 3"):
        BiFPN(LEVELS[:1], 4, extra_levels=0)


def parts(backbone: Backbone, pyramid: Pyramid) -> tuple[dict[str, nn.Module], RPNHead, FastRCNNHead]:
    """What detectors are made of; the class scores are made large, so that something is found."""
    roi = FastRCNNHead(pyramid.levels, CLASSES, config=ROI_NUMBERS)
    nn.init.normal_(roi.scores.weight, std=1.0)
    body = {"backbone": copy.deepcopy(backbone), "pyramid": pyramid}
    return body, RPNHead(pyramid.levels, RPN_NUMBERS), roi


def a_batch() -> ImageBatch:
    sizes = torch.tensor([[64.0, 96.0], [50.0, 70.0]])
    return ImageBatch(torch.randn(2, 3, 64, 96), sizes, sizes)


def some_targets(count: int) -> Targets:
    """The same objects in both images."""
    boxes = torch.tensor([[4.0, 4.0, 40.0, 40.0], [2.0, 3.0, 14.0, 12.0]])[:count].expand(2, count, 4)
    valid = torch.ones(2, count, dtype=torch.bool)
    return Targets(boxes.clone(), torch.ones(2, count, dtype=torch.int64), valid, torch.zeros_like(valid))


def assert_learns(detector: nn.Module, losses: dict[str, Tensor], names: set[str]) -> None:
    assert losses.keys() == names
    assert all(each.isfinite() and each.ndim == 0 for each in losses.values())
    sum(losses.values()).backward()
    assert all(each.grad is None or each.grad.isfinite().all() for each in detector.pyramid.parameters())
    assert any(each.grad is not None and each.grad.any() for each in detector.pyramid.parameters())


RPN_LOSSES, ROI_LOSSES = {"rpn_objectness", "rpn_box"}, {"roi_class", "roi_box"}


def test_faster_rcnn_stands_on_it_with_no_further_wiring(pyramid, backbone):
    body, rpn, roi = parts(backbone, pyramid)
    detector = FasterRCNN(**body, rpn=rpn, roi=roi, postprocess=POSTPROCESS).train()
    batch = a_batch()
    assert_learns(detector, detector.losses(batch, some_targets(2)), RPN_LOSSES | ROI_LOSSES)
    results = detector.eval().detect(batch)
    numbers = {int(level.name[1:]) for level in roi.levels}
    for found, (height, width) in zip(results, batch.sizes_hw.tolist(), strict=True):
        assert len(found) > 0
        assert (found.boxes_xyxy >= 0).all()
        assert (found.boxes_xyxy <= torch.tensor([width, height, width, height])).all()
        assert set(found.levels.tolist()) <= numbers


@pytest.mark.parametrize("on", ["own"])
def test_faster_rcnn_learns_from_images_without_objects(pyramid, backbone):
    body, rpn, roi = parts(backbone, pyramid)
    detector = FasterRCNN(**body, rpn=rpn, roi=roi, postprocess=POSTPROCESS).train()
    losses = detector.losses(a_batch(), some_targets(0))
    assert_learns(detector, losses, RPN_LOSSES | ROI_LOSSES)
    assert losses["rpn_box"] == losses["roi_box"] == 0


@pytest.mark.parametrize("objects", [2, 0], ids=["objects", "no object"])
@pytest.mark.parametrize("on", OWN)
def test_rpn_stands_on_it_with_no_further_wiring(pyramid, backbone, objects):
    body, rpn, _ = parts(backbone, pyramid)
    detector = RPN(**body, rpn=rpn).train()
    batch = a_batch()
    assert_learns(detector, detector.losses(batch, some_targets(objects)), RPN_LOSSES)
    for found, (height, width) in zip(detector.eval().detect(batch), batch.sizes_hw.tolist(), strict=True):
        assert 0 < len(found.scores) <= RPN_NUMBERS.proposals
        assert found.valid.all()
        assert torch.equal(found.scores, found.scores.sort(descending=True).values)
        assert (found.boxes_xyxy <= torch.tensor([width, height, width, height])).all()
    assert detector.propose(batch, count=7).boxes_xyxy.shape == (2, 7, 4)


@pytest.mark.parametrize("objects", [2, 0], ids=["objects", "no object"])
@pytest.mark.parametrize("on", OWN)
def test_fast_rcnn_stands_on_it_with_given_proposals(pyramid, backbone, objects):
    body, _, roi = parts(backbone, pyramid)
    detector = FastRCNN(**body, roi=roi, postprocess=POSTPROCESS).train()
    batch, boxes = a_batch(), torch.tensor([[5.0, 5.0, 40.0, 38.0], [0.0, 0.0, 12.0, 12.0], [9.0, 9.0, 9.0, 9.0]])
    given = Proposals(boxes.expand(2, 3, 4), torch.zeros(2, 3), torch.tensor([[True, True, False], [False] * 3]))
    assert_learns(detector, detector.losses(batch, some_targets(objects), given), ROI_LOSSES)
    first, second = detector.eval().detect(batch, given)
    assert len(first) > 0
    assert len(second) == 0  # it was given no valid proposal


@pytest.mark.parametrize("on", ["own"])
@pytest.mark.parametrize("kind", ["FPN", "ImagePyramid"])
def test_detectors_refuse_to_detect_in_training_mode(pyramid, backbone):
    body, rpn, roi = parts(backbone, pyramid)
    given = Proposals(torch.zeros(2, 1, 4), torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.bool))
    with pytest.raises(ConfigError, match=r"call detector.eval\(\) first"):
        RPN(**body, rpn=rpn).train().detect(a_batch())
    with pytest.raises(ConfigError, match=r"call detector.eval\(\) first"):
        FastRCNN(**body, roi=roi).train().detect(a_batch(), given)
