"""A whole detector is one graph: it compiles without breaks and exports with dynamic batch, height and width.

Images come padded to multiples of 32 (`PreprocessConfig.pad_to`), so height and width are declared as 32 h and 32 w.
h and w start at 3: export takes sides of one cell for constants, and those of P6 are 1 up to 64 pixels.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import tiny
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fpnkit.backbones.same_padding import SameConv2d, simplify_same_padding
from fpnkit.data.preprocess import PreprocessConfig
from fpnkit.detectors import FasterRCNN
from fpnkit.inference.torch_engine import TorchEngine
from fpnkit.zoo import build

TRACED_AT = (2, 128, 160)
OTHERS = [(1, 96, 224), (3, 160, 128), (2, 128, 160), (1, 96, 96)]
BATCH = Dim("batch", min=1, max=64)
DYNAMIC = ({0: BATCH, 2: 32 * Dim("h", min=3, max=64), 3: 32 * Dim("w", min=3, max=64)}, {0: BATCH})


@cache
def detector() -> FasterRCNN:
    """A random small detector whose predictions are made large, so that it detects."""
    torch.manual_seed(0)
    model = build("faster_rcnn_lite0_fpn", 3).eval()
    with torch.no_grad():
        for layer, factor in ((model.rpn.objectness, 30), (model.rpn.deltas, 10), (model.roi.scores, 30)):
            layer.weight.mul_(factor)
    return model


@cache
def exported() -> ExportedProgram:
    """The detector as one exported graph of any batch, height and width."""
    with torch.no_grad():
        return torch.export.export(detector(), some_input(*TRACED_AT), dynamic_shapes=DYNAMIC)


def some_input(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Random images and sizes that leave some padding."""
    dice = torch.Generator().manual_seed(height + width)
    inside = torch.rand(count, 2, generator=dice) * 20
    return torch.randn(count, 3, height, width, generator=dice), torch.tensor([height, width]) - inside


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Equal outputs, with real detections among them."""
    boxes_xyxy, scores, valid = wanted["boxes_xyxy"], wanted["scores"], wanted["valid"]
    assert valid.sum() >= 10 * len(valid)
    assert scores[valid].std() > 0.01
    assert boxes_xyxy[valid].unique(dim=0).shape[0] > 10
    assert list(found) == list(wanted)
    for name, theirs in wanted.items():
        assert found[name].dtype == theirs.dtype
        torch.testing.assert_close(found[name], theirs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_compiles_once_without_a_graph_break() -> None:
    compiled = torch.compile(detector(), backend="eager", fullgraph=True, dynamic=True)
    # Not 2 or 3 images: torch would take the batch for the columns of sizes or for the colour channels.
    first, other = some_input(4, 128, 160), some_input(5, 96, 224)
    assert_same(compiled(*first), detector()(*first))
    with torch.compiler.set_stance("fail_on_recompile"):
        assert_same(compiled(*other), detector()(*other))


@torch.no_grad()
def test_exported_graph_is_saved_and_serves_any_batch_height_and_width(tmp_path) -> None:
    torch.export.save(exported(), tmp_path / "detector.pt2")
    loaded = torch.export.load(tmp_path / "detector.pt2").module()
    for size in OTHERS:
        assert_same(loaded(*some_input(*size)), detector()(*some_input(*size)))


def test_exported_graph_calls_our_operators() -> None:
    called = [str(node.target) for node in exported().graph.nodes if node.op == "call_function"]
    assert called.count("fpnkit.nms_keep.default") == 2  # of the RPN and of the RoI head
    assert called.count("fpnkit.multi_level_roi_align.default") == 1


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("kind", tiny.PYRAMIDS)
def test_a_detector_on_every_pyramid_is_one_graph(kind: str) -> None:
    model = tiny.detector(kind, nms_iou=0.9)
    graph = torch.export.export(model, some_input(*TRACED_AT), dynamic_shapes=DYNAMIC).module()
    for size in OTHERS:
        assert_same(graph(*some_input(*size)), model(*some_input(*size)))


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3, (2, 1)])
@pytest.mark.parametrize("kernel", [2, 3, 5, (3, 5)])
def test_simplified_same_padding_is_timms(kernel, stride, dilation: int) -> None:
    conv = nn.Sequential(Conv2dSame(3, 4, kernel, stride=stride, dilation=dilation))
    images = [torch.randn(2, 3, height, width) for height, width in [(7, 8), (9, 10), (12, 5), (1, 1)]]
    before, names = [conv(image) for image in images], list(conv.state_dict())
    simplify_same_padding(conv)
    assert type(conv[0]) is (Conv2dSame if (kernel, stride, dilation) == (2, 3, 1) else SameConv2d)
    assert list(conv.state_dict()) == names
    for image, wanted in zip(images, before, strict=True):
        torch.testing.assert_close(conv(image), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_compiled_engine_finds_the_same_and_compiles_no_size_anew(precision) -> None:
    plain, compiled = (
        TorchEngine(tiny.detector(), torch.device("cpu"), precision, compiled=each) for each in (False, True)
    )
    config = PreprocessConfig(short_side=160, long_side=256, mean=(0.5,) * 3, std=(0.2,) * 3)
    dice = np.random.default_rng(0)
    photos = [dice.integers(256, size=(*size, 3), dtype=np.uint8) for size in [(160, 200), (256, 160), (90, 96)]]
    found = compiled.detect(photos[:1], config)
    with torch.compiler.set_stance("fail_on_recompile"):
        found += [each for photo in photos[1:] for each in compiled.detect([photo], config)]
    for mine, photo in zip(found, photos, strict=True):
        (wanted,) = plain.detect([photo], config)
        assert len(wanted["scores"]) >= 5
        if precision == "float32":
            np.testing.assert_allclose(mine["boxes_xyxy"], wanted["boxes_xyxy"], atol=1e-2, rtol=1e-4)
            np.testing.assert_allclose(mine["scores"], wanted["scores"], atol=1e-4, rtol=1e-3)
        else:
            assert abs(len(mine["scores"]) - len(wanted["scores"])) <= 3
            np.testing.assert_allclose(mine["scores"][:3], wanted["scores"][:3], atol=0.05)
