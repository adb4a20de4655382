"""The contract of the whole detector, built from small parts."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from functools import partial

import pytest
import tiny
import torch
from torch import Tensor, nn

from fpnkit import backbones
from fpnkit.backbones import Backbone, wrap
from fpnkit.data.preprocess import Preprocess, PreprocessConfig
from fpnkit.detectors import RPN as RPNDetector
from fpnkit.detectors import Detector, FasterRCNN, FastRCNN, Postprocess
from fpnkit.errors import ConfigError
from fpnkit.heads import FastRCNNConfig, FastRCNNHead, RPNConfig, RPNHead
from fpnkit.ops.boxes import iou
from fpnkit.pyramids import FPN
from fpnkit.structures import ImageBatch, LevelSpec, Targets

CLASSES = 3
LOSSES = {"rpn_objectness", "rpn_box", "roi_class", "roi_box"}
NESTED = [[1.0, 1.0, side, side] for side in (12.0, 130.0, 240.0, 255.0)]
"""Objects of all sizes, so that every level has something to learn."""
PREPROCESS = Preprocess(PreprocessConfig(short_side=1, long_side=1, mean=(0.5,) * 3, std=(0.5,) * 3))


class Tiny(nn.Module):
    """Four strided convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Conv2d(a, b, ratio + 1, stride=ratio, padding=ratio // 2)
            for a, b, ratio in [(3, 16, 4), (16, 16, 2), (16, 16, 2), (16, 16, 2)]
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            images = torch.relu(stage(images))
            maps.append(images)
        return maps


RPN = RPNConfig(per_level=30, proposals=20, train_per_level=30, train_proposals=25, samples=32)
ROI = FastRCNNConfig(hidden=32, samples=16)
POSTPROCESS = Postprocess(detections=10, min_score=0.0)


def build(
    backbone: Backbone | None = None,
    *,
    rpn: RPNConfig = RPN,
    roi: FastRCNNConfig = ROI,
    postprocess: Postprocess = POSTPROCESS,
) -> FasterRCNN:
    backbone = backbone or wrap(Tiny())
    pyramid = FPN(backbone.levels, 32)
    return FasterRCNN(
        backbone=backbone,
        pyramid=pyramid,
        rpn=RPNHead(pyramid.levels, rpn),
        roi=FastRCNNHead(pyramid.levels, CLASSES, config=roi),
        postprocess=postprocess,
    )


def batch_of(*sizes: tuple[int, int]) -> ImageBatch:
    """Random images, not resized, padded to multiples of 32."""
    images = [torch.randint(256, (3, *size), dtype=torch.uint8) for size in sizes]
    return PREPROCESS.normalise(PREPROCESS.pixels(images, sizes))


def targets_of(*boxes: list[list[float]], most: int | None = None) -> Targets:
    """Boxes of each image, all of class 1, padded with invalid ones."""
    most = max(map(len, boxes)) if most is None else most
    made = torch.zeros(len(boxes), most, 4)
    valid = torch.zeros(len(boxes), most, dtype=torch.bool)
    for row, rows in enumerate(boxes):
        made[row, : len(rows)] = torch.tensor(rows).reshape(-1, 4)
        valid[row, : len(rows)] = True
    return Targets(made, torch.ones(len(boxes), most, dtype=torch.int64), valid, torch.zeros_like(valid))


def clones(value) -> dict[str, Tensor]:
    named = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: each.clone() for name, each in named.items() if each is not None}


def unchanged(value, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(getattr(value, name), each) for name, each in before.items())


def backward(losses: dict[str, Tensor]) -> None:
    assert losses.keys() == LOSSES
    assert all(value.isfinite() and value.ndim == 0 for value in losses.values())
    sum(losses.values()).backward()


@pytest.fixture(scope="module")
def detector() -> FasterRCNN:
    torch.manual_seed(0)
    return build().eval()


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (31, 33), (64, 64), (97, 50), (130, 129)])
def test_any_size_runs(detector, size):
    batch = batch_of(size)
    (found,) = detector.detect(batch)
    assert len(found.scores) == len(found.boxes_xyxy) == len(found.labels) == len(found.levels) <= 10
    backward(copy.deepcopy(detector).train().losses(batch, targets_of([[0.0, 0.0, float(size[1]), float(size[0])]])))


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (101, 63)])
def test_a_size_that_is_not_padded_runs_too(detector, size):
    images = torch.rand(1, 3, *size)
    sizes = torch.tensor([size]).float()
    assert len(detector.detect(ImageBatch(images, sizes, sizes))) == 1


def test_what_is_found_keeps_its_promises(detector):
    batch = batch_of((100, 60), (50, 120))
    results = detector.detect(batch)
    assert len(results) == 2
    for found, (height, width) in zip(results, batch.sizes_hw.tolist(), strict=True):
        assert len(found) > 0
        assert found.valid.all()
        assert ((found.labels >= 0) & (found.labels < CLASSES)).all()
        assert ((found.levels >= 2) & (found.levels <= 5)).all()
        assert ((found.scores > 0) & (found.scores <= 1)).all()
        assert torch.equal(found.scores, found.scores.sort(descending=True).values)
        assert (found.boxes_xyxy >= 0).all()
        assert (found.boxes_xyxy <= torch.tensor([width, height, width, height])).all()
        assert (found.boxes_xyxy[:, 2:] > found.boxes_xyxy[:, :2]).all()


def test_proposals_keep_their_promises(detector):
    batch = batch_of((100, 60), (50, 120))
    for (proposals, found), (height, width) in zip(
        detector.detect_and_propose(batch, proposals=50), batch.sizes_hw.tolist(), strict=True
    ):
        assert 20 < len(proposals.scores) <= 50
        assert torch.equal(proposals.scores, proposals.scores.sort(descending=True).values)
        assert (proposals.boxes_xyxy >= 0).all()
        assert (proposals.boxes_xyxy <= torch.tensor([width, height, width, height])).all()
        assert len(found) <= 10


@pytest.mark.parametrize("count", [60, 5])
def test_the_number_of_proposals_does_not_change_what_is_found(detector, count):
    batch = batch_of((64, 64))
    (usual,), ((proposals, found),) = detector.detect(batch), detector.detect_and_propose(batch, proposals=count)
    assert torch.equal(usual.boxes_xyxy, found.boxes_xyxy)
    assert torch.equal(usual.scores, found.scores)
    assert len(proposals.scores) == 5 if count == 5 else 20 < len(proposals.scores) <= 60


def test_forward_has_fixed_sizes_and_agrees_with_detect(detector):
    batch = batch_of((64, 64), (40, 64))
    found = detector(batch.images, batch.sizes_hw)
    boxes, scores, labels, levels, valid = found.values()
    assert list(found) == ["boxes_xyxy", "scores", "labels", "levels", "valid"]
    assert boxes.shape == (2, 10, 4)
    assert scores.shape == labels.shape == levels.shape == valid.shape == (2, 10)
    for i, found in enumerate(detector.detect(batch)):
        torch.testing.assert_close(boxes[i][valid[i]], found.boxes_xyxy)
        assert torch.equal(labels[i][valid[i]], found.labels)


def test_a_batch_of_two_equals_two_singles(detector):
    batch = batch_of((96, 64), (70, 60))
    for i, found in enumerate(detector.detect(batch)):
        (alone,) = detector.detect(batch[i : i + 1])
        assert torch.equal(found.labels, alone.labels)
        assert torch.equal(found.levels, alone.levels)
        torch.testing.assert_close(found.scores, alone.scores)
        torch.testing.assert_close(found.boxes_xyxy, alone.boxes_xyxy, atol=1e-3, rtol=1e-4)


def test_a_broken_image_does_not_disturb_its_neighbour(detector):
    batch = batch_of((64, 64), (64, 64))
    (alone,) = detector.detect(batch[1:])
    batch.images[0] = float("nan")
    broken, found = detector.detect(batch)
    assert len(broken) == 0
    torch.testing.assert_close(found.boxes_xyxy, alone.boxes_xyxy, atol=1e-3, rtol=1e-4)


def test_scores_below_the_minimum_are_not_returned():
    assert len(build(postprocess=Postprocess(min_score=0.99)).eval().detect(batch_of((64, 64)))[0]) == 0


def test_input_is_not_changed(detector):
    batch, targets = batch_of((64, 64)), targets_of([[4.0, 4.0, 40.0, 40.0]])
    before, targets_before = clones(batch), clones(targets)
    detector.detect(batch)
    copy.deepcopy(detector).train().losses(batch, targets)
    assert unchanged(batch, before)
    assert unchanged(targets, targets_before)


def test_detect_does_not_touch_random_state_or_weights(detector):
    batch = batch_of((64, 64))
    state, weights = torch.get_rng_state(), copy.deepcopy(detector.state_dict())
    detector.detect(batch)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in detector.state_dict().items())


def test_detect_needs_inference_mode():
    detector, batch = build(), batch_of((32, 32))
    for call in (detector.detect, detector.detect_and_propose):
        with pytest.raises(ConfigError) as error:
            call(batch)
        assert str(error.value) == "expected the detector in inference mode: call detector.eval() first"


def test_modes_do_not_change_the_type_of_losses():
    detector, batch, targets = build(), batch_of((64, 64)), targets_of([[4.0, 4.0, 40.0, 40.0]])
    assert detector.losses(batch, targets).keys() == detector.eval().losses(batch, targets).keys() == LOSSES


@pytest.mark.parametrize("most", [0, 3], ids=["no slots", "all invalid"])
def test_no_objects_give_finite_losses(most):
    detector = build()
    losses = detector.losses(batch_of((64, 64), (50, 40)), targets_of([], [], most=most))
    assert losses["rpn_box"].item() == losses["roi_box"].item() == 0
    backward(losses)
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -1e30])
@pytest.mark.parametrize("objects", [[], [[4.0, 4.0, 40.0, 40.0]]], ids=["no object", "one object"])
def test_padding_of_targets_may_hold_anything(junk, objects):
    detector = build(roi=replace(ROI, samples=64))  # more than there are proposals: padding is drawn too
    targets = targets_of(objects, most=3)
    targets.boxes_xyxy[~targets.valid] = junk
    targets.labels[~targets.valid] = -7
    backward(detector.losses(batch_of((64, 64)), targets))
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())


def test_a_crowd_is_no_object():
    detector, targets = build(), targets_of([[4.0, 4.0, 40.0, 40.0]])
    targets.crowd[:] = True
    losses = detector.losses(batch_of((64, 64)), targets)
    assert losses["rpn_box"].item() == losses["roi_box"].item() == 0


def test_an_object_of_zero_size_gives_finite_losses():
    detector = build()
    backward(detector.losses(batch_of((64, 64)), targets_of([[9.0, 9.0, 9.0, 9.0], [5.0, 5.0, 5.0, 30.0]])))
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())


def test_gradients_reach_every_parameter():
    detector = build(rpn=replace(RPN, samples=512))
    backward(detector.losses(batch_of((256, 256)), targets_of(NESTED)))
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_gradients_stop_at_frozen_stages():
    detector = build(backbones.timm("resnet18", frozen_stages=1), rpn=replace(RPN, samples=512))
    backward(detector.losses(batch_of((256, 256)), targets_of(NESTED)))
    got = {name for name, parameter in detector.named_parameters() if parameter.grad is not None}
    trainable = {name for name, parameter in detector.named_parameters() if parameter.requires_grad}
    assert got == trainable
    assert not any(name.startswith(("backbone.body.conv1", "backbone.body.layer1")) for name in got)
    assert any(name.startswith("backbone.body.layer2") for name in got)


def test_saved_weights_give_the_same_detections(detector, tmp_path):
    torch.save(detector.state_dict(), tmp_path / "weights.pt")
    torch.manual_seed(1)
    other = build().eval()
    batch = batch_of((64, 64))
    assert not torch.equal(other.detect(batch)[0].scores, detector.detect(batch)[0].scores)
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(other.detect(batch)[0].boxes_xyxy, detector.detect(batch)[0].boxes_xyxy)


def test_parts_of_other_levels_are_refused():
    backbone = wrap(Tiny())
    pyramid = FPN(backbone.levels, 32)
    rpn, roi = RPNHead(pyramid.levels), FastRCNNHead(pyramid.levels, CLASSES, config=FastRCNNConfig(hidden=8))
    narrow = FPN(backbone.levels, 16).levels
    wider = FPN([LevelSpec(level.name, level.stride, 9) for level in backbone.levels], 32)

    with pytest.raises(ConfigError) as error:
        FasterRCNN(backbone=backbone, pyramid=wider, rpn=rpn, roi=roi)
    assert "the pyramid expects c2 (stride 4, 9 channels), c3 (stride 8, 9 channels)" in str(error.value)
    assert "the backbone gives c2 (stride 4, 16 channels), c3 (stride 8, 16 channels)" in str(error.value)
    assert str(error.value).endswith("build the pyramid from backbone.levels")

    with pytest.raises(ConfigError) as error:
        FasterRCNN(backbone=backbone, pyramid=pyramid, rpn=RPNHead(narrow), roi=roi)
    assert str(error.value).startswith("RPNHead reads p2 (stride 4, 16 channels)")
    assert "the pyramid gives p2 (stride 4, 32 channels)" in str(error.value)
    assert str(error.value).endswith("build the head from pyramid.levels")

    with pytest.raises(ConfigError, match=r"^FastRCNNHead reads p2 \(stride 4, 16 channels\)"):
        FasterRCNN(backbone=backbone, pyramid=pyramid, rpn=rpn, roi=FastRCNNHead(narrow, CLASSES))


@pytest.mark.parametrize(
    ("config", "numbers", "message"),
    [
        (RPNConfig, {"negative_iou": 0.8}, "<= 1, got negative_iou 0.8 and positive_iou 0.7"),
        (RPNConfig, {"samples": 0}, "RPN expects samples, per_level and proposals of at least 1"),
        (RPNConfig, {"positive_fraction": 1.5}, "in 0..1, got positive_fraction 1.5 and nms_iou 0.7"),
        (RPNConfig, {"ratios": (1.0, -1.0)}, r"positive ratios, got anchor_scale 8.0 and ratios \(1.0, -1.0\)"),
        (RPNConfig, {"ratios": ()}, r"positive ratios, got anchor_scale 8.0 and ratios \(\)"),
        (FastRCNNConfig, {"hidden": 0}, "Fast R-CNN head expects hidden, pooled and samples of 1 or more"),
        (FastRCNNConfig, {"positive_iou": -0.1}, "Fast R-CNN head expects positive_iou in 0..1, got -0.1"),
        (Postprocess, {"detections": 0}, "postprocess.detections must be 1 or more, got 0"),
        (Postprocess, {"nms_iou": -0.1}, "postprocess.nms_iou must lie in 0..1, got -0.1"),
        (Postprocess, {"min_score": float("nan")}, "postprocess.min_score must lie in 0..1, got nan"),
    ],
)
def test_numbers_out_of_range_are_refused(config, numbers, message):
    with pytest.raises(ConfigError, match=message):
        config(**numbers)


def test_a_head_needs_levels_of_one_width_and_a_class():
    mixed = [LevelSpec("p2", 4, 8), LevelSpec("p3", 8, 16)]
    with pytest.raises(ConfigError) as error:
        RPNHead(mixed)
    wanted = "RPN head is shared by its levels and expects equal channels, got p2 of 8, p3 of 16: pass pyramid.levels"
    assert str(error.value) == wanted
    with pytest.raises(ConfigError, match=r"Fast R-CNN head is shared .* got no levels: pass pyramid.levels"):
        FastRCNNHead([], CLASSES)
    with pytest.raises(ConfigError, match="expects at least 1 class, got 0"):
        FastRCNNHead(mixed[:1], 0)


def test_one_image_with_two_rectangles_is_learned():
    """Losses fall, and both rectangles are found with their classes."""
    rectangles = torch.tensor([[8.0, 12.0, 40.0, 44.0], [50.0, 40.0, 90.0, 88.0]])
    image = torch.zeros(3, 96, 96, dtype=torch.uint8)
    image[0, 12:44, 8:40] = 255
    image[2, 40:88, 50:90] = 255
    batch = PREPROCESS.normalise(PREPROCESS.pixels([image], [(96, 96)]))
    targets = targets_of(rectangles.tolist())
    targets.labels[0, 1] = 2

    rpn = RPNConfig(per_level=200, proposals=60, train_per_level=200, train_proposals=60)
    detector = build(rpn=rpn, roi=replace(ROI, samples=64), postprocess=Postprocess(detections=10))
    optimizer = torch.optim.Adam(detector.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [65], gamma=0.1)
    history = []
    for _ in range(90):
        loss = sum(detector.losses(batch, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        history.append(loss.item())
    assert sum(history[-5:]) < 0.5 * sum(history[:5])

    (found,) = detector.eval().detect(batch)
    for rectangle, label in zip(rectangles, (1, 2), strict=True):
        hits = iou(rectangle[None], found.boxes_xyxy)[0] > 0.5
        assert (hits & (found.labels == label)).any()


DETECTORS = {
    "Faster R-CNN": tiny.detector,
    "cascade": partial(tiny.detector, stages=3),
    "RPN": partial(tiny.detector, kind=RPNDetector),
    "Fast R-CNN": partial(tiny.detector, kind=FastRCNN),
    "without pyramid": tiny.cells,
}
FINDERS = {name: DETECTORS[name] for name in ("Faster R-CNN", "cascade", "without pyramid")}


def forward(network: nn.Module) -> dict[str, Tensor]:
    """What a network gives for two images of different sizes, and of a Fast R-CNN for 40 proposals of each."""
    dice = torch.Generator().manual_seed(0)
    given = [torch.randn(2, 3, 128, 160, generator=dice), torch.tensor([[128.0, 160.0], [100.0, 90.0]])]
    if "proposals_xyxy" in network.inputs:
        corners = 100 * torch.rand(2, 40, 2, generator=dice)
        given.append(torch.cat([corners, corners + 5 + 60 * torch.rand(2, 40, 2, generator=dice)], dim=2))
    with torch.no_grad():
        return network(*given)


@pytest.mark.parametrize("name", DETECTORS)
def test_outputs_are_as_announced(name):
    network = DETECTORS[name]()
    found = forward(network)
    assert list(found) == [*(spec.name for spec in network.outputs), "valid"]
    assert found["valid"].dtype == torch.bool
    assert found["valid"].any(dim=1).all()
    for spec in network.outputs:
        values = found[spec.name]
        assert values.dtype == getattr(torch, spec.dtype), spec
        assert values.shape == (*found["valid"].shape, *spec.shape), spec


@pytest.mark.parametrize("name", FINDERS)
def test_other_numbers_of_postprocessing_change_what_a_built_detector_finds(name):
    network, every = FINDERS[name](), 10_000
    network.postprocess = Postprocess(min_score=0.0, nms_iou=1.0, detections=every)
    all_of_them = forward(network)
    count, scores = int(all_of_them["valid"].sum()), all_of_them["scores"][all_of_them["valid"]]
    assert all_of_them["boxes_xyxy"].shape == (2, every, 4)

    network.postprocess = Postprocess(min_score=0.0, nms_iou=0.3, detections=every)
    assert 0 < forward(network)["valid"].sum() < count

    least = float(scores.median())
    network.postprocess = Postprocess(min_score=least, nms_iou=1.0, detections=every)
    strong = forward(network)
    assert strong["valid"].sum() == (scores > least).sum() > 0
    assert strong["scores"][strong["valid"]].min() > least

    network.postprocess = Postprocess(min_score=0.0, nms_iou=1.0, detections=3)
    best = forward(network)
    assert best["valid"].all()
    for key, values in best.items():
        assert torch.equal(values, all_of_them[key][:, :3]), key


def test_a_detector_that_lacks_a_method_cannot_be_made():
    for missing in ("num_classes", "forward", "losses"):
        methods = {name: getattr(tiny.Cells, name) for name in ("num_classes", "forward", "losses") if name != missing}
        unfinished = type("Unfinished", (Detector,), methods)
        with pytest.raises(TypeError, match=rf"abstract class Unfinished .*{missing}"):
            unfinished()


def test_a_detector_without_pyramid_detects_by_its_forward_alone():
    network, batch = tiny.cells(), batch_of((100, 60), (50, 120))
    whole = network(batch.images, batch.sizes_hw)
    for index, (found, (proposals, same)) in enumerate(
        zip(network.detect(batch), network.detect_and_propose(batch), strict=True)
    ):
        assert proposals is None
        assert found.valid.all()
        assert len(found) > 3
        for name, values in found.named().items():
            assert torch.equal(values, whole[name][index][whole["valid"][index]]), name
            assert torch.equal(values, same.named()[name]), name
    with pytest.raises(ConfigError, match=r"call detector.eval\(\)"):
        network.train().detect(batch)
    for ask in (lambda: network.inspect(batch), lambda: network.assign_levels(torch.zeros(1, 4))):
        with pytest.raises(ConfigError, match=r"^Cells (has no pyramid levels|does not assign objects to levels)"):
            ask()
    assert network.class_layers() == ()


@pytest.mark.parametrize("stages", [1, 2])
def test_class_layers_have_the_rows_that_they_announce(stages):
    network = tiny.detector(stages=stages)
    layers = network.class_layers()
    assert len(layers) == 2 * stages
    for layer in layers:
        rows = network.get_submodule(layer.name).weight.shape[0]
        assert rows == layer.rows * network.num_classes + layer.background, layer
