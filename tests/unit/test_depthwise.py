"""After a CPU training in bfloat16 a detector can be copied, pickled and folded like any other."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from fpnkit.detectors import FasterRCNN
from fpnkit.inference.fold import folded
from fpnkit.structures import ImageBatch, Targets
from fpnkit.training.ema import EMA
from fpnkit.training.optimize import Optimizer, OptimizerConfig
from fpnkit.zoo import build


def trained(name: str = "faster_rcnn_lite0_fpn") -> FasterRCNN:
    """A detector after two steps in bf16 on a CPU; its first stages are thawed, so that all depthwise layers learn."""
    torch.manual_seed(0)
    detector = build(name, 2)
    detector.backbone.thaw()
    optimizer = Optimizer(detector.train(), OptimizerConfig(lr=1e-3), steps=2, device=torch.device("cpu"))
    sizes_hw = torch.tensor([[64.0, 64.0]])
    batch = ImageBatch(torch.randn(1, 3, 64, 64), sizes_hw, sizes_hw)
    flags = torch.tensor([[True]])
    targets = Targets(torch.tensor([[[8.0, 8.0, 40.0, 40.0]]]), torch.tensor([[1]]), flags, ~flags)
    for step in range(2):
        optimizer.step(step, [lambda: detector.losses(batch, targets)])
    return detector.eval()


@pytest.fixture(scope="module")
def detector() -> FasterRCNN:
    return trained()


def maps(detector: FasterRCNN, images: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return dict(detector.features(images))


def depthwise(detector: nn.Module) -> list[nn.Conv2d]:
    return [each for each in detector.modules() if isinstance(each, nn.Conv2d) and each.groups > 1]


def test_a_copy_computes_with_its_own_weights(detector: FasterRCNN) -> None:
    copied, images = copy.deepcopy(detector), torch.randn(1, 3, 64, 64)
    before = maps(copied, images)
    with torch.no_grad():
        for layer in depthwise(copied):
            layer.weight.zero_()
    changed = maps(copied, images)
    assert all(not torch.equal(before[name], changed[name]) for name in before)
    ours = maps(detector, images)
    assert all(torch.equal(before[name], ours[name]) for name in before)


def test_pickled_it_computes_the_same(detector: FasterRCNN) -> None:
    images = torch.randn(1, 3, 64, 64)
    again, wanted = maps(pickle.loads(pickle.dumps(detector)), images), maps(detector, images)
    assert all(torch.equal(again[name], wanted[name]) for name in wanted)


def test_folding_leaves_no_norm(detector: FasterRCNN) -> None:
    images = torch.randn(1, 3, 96, 96)
    after = folded(detector)
    assert not [each for each in after.modules() if "BatchNorm" in type(each).__name__]
    for name, wanted in maps(detector, images).items():
        torch.testing.assert_close(maps(after, images)[name], wanted, rtol=1e-3, atol=1e-3)


def test_names_of_weights_stay(detector: FasterRCNN) -> None:
    assert list(detector.state_dict()) == list(build("faster_rcnn_lite0_fpn", 2).state_dict())


def test_trained_layers_compute_in_float32_and_without_gradients_in_bfloat16(detector: FasterRCNN) -> None:
    layer = depthwise(detector)[0]
    features = torch.randn(1, layer.in_channels, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(features).dtype == torch.float32
        with torch.no_grad():
            assert layer(features).dtype == torch.bfloat16


def test_an_average_has_weights_of_its_own(detector: FasterRCNN) -> None:
    ema = EMA(detector, decay=0.5)
    assert not set(map(id, ema.network.parameters())) & set(map(id, detector.parameters()))
    state = {name: value.clone() for name, value in ema.network.state_dict().items()}
    other = trained()
    with torch.no_grad():
        for layer in depthwise(other):
            layer.weight.add_(1)
    ema.update(other, 100)
    name = next(name for name, module in other.named_modules() if module is depthwise(other)[0])
    torch.testing.assert_close(ema.network.state_dict()[f"{name}.weight"], state[f"{name}.weight"] + 0.5)
