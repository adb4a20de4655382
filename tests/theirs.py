"""Detectors of other libraries, with seeded weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection._utils import overwrite_eps
from torchvision.ops import FrozenBatchNorm2d, roi_align

CLASSES = 3
BLOCKS = {"r50": (3, 4, 6, 3), "r101": (3, 4, 23, 3)}


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)


def seeded(values: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Weights that let signals of usual size through, and norms with statistics of their own."""
    dice = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in values.items():
        if name.endswith("running_var"):
            state[name] = 0.5 + torch.rand(shape, generator=dice)
        elif len(shape) == 1 and name.endswith("weight"):
            state[name] = 0.4 + 0.3 * torch.rand(shape, generator=dice)
        elif len(shape) == 1:
            state[name] = 0.2 * torch.randn(shape, generator=dice)
        else:
            state[name] = torch.randn(shape, generator=dice) * (1.5 / torch.tensor(shape[1:]).prod()) ** 0.5
    return state


def torchvision_model(depth: str, *, eps: float = 1e-5, classes: int = CLASSES) -> nn.Module:
    """Faster R-CNN as torchvision builds it around released weights: with frozen norms."""
    backbone = detection.backbone_utils.resnet_fpn_backbone(
        backbone_name=depth.replace("r", "resnet"), weights=None, norm_layer=FrozenBatchNorm2d
    )
    model = detection.FasterRCNN(backbone, classes + 1)
    overwrite_eps(model, eps)
    model.load_state_dict(seeded({name: tuple(value.shape) for name, value in model.state_dict().items()}))
    return model.eval()


class Detectron2:
    """What detectron2 computes from its state dict, in plain functions: ResNet, FPN, RPN head, box head.

    Args:
        blocks: of each stage.
        stride_in_1x1: as in its configuration.
    """

    def __init__(self, blocks: tuple[int, ...], *, stride_in_1x1: bool, boxes: bool = True) -> None:
        self.blocks, self.stride_in_1x1 = blocks, stride_in_1x1
        self.state = seeded(self.shapes(boxes))

    def shapes(self, boxes: bool) -> dict[str, tuple[int, ...]]:
        made: dict[str, tuple[int, ...]] = {}

        def conv(name: str, out: int, into: int, side: int, *, norm: bool) -> None:
            made[f"{name}.weight"] = (out, into, side, side)
            if not norm:
                made[f"{name}.bias"] = (out,)
            for part in ("weight", "bias", "running_mean", "running_var") if norm else ():
                made[f"{name}.norm.{part}"] = (out,)

        stem = "backbone.bottom_up."
        conv(f"{stem}stem.conv1", 64, 3, 7, norm=True)
        into = 64
        for stage, count in enumerate(self.blocks):
            inner, out = 64 * 2**stage, 256 * 2**stage
            for block in range(count):
                name = f"{stem}res{stage + 2}.{block}"
                if block == 0:
                    conv(f"{name}.shortcut", out, into, 1, norm=True)
                conv(f"{name}.conv1", inner, into, 1, norm=True)
                conv(f"{name}.conv2", inner, inner, 3, norm=True)
                conv(f"{name}.conv3", out, inner, 1, norm=True)
                into = out
            conv(f"backbone.fpn_lateral{stage + 2}", 256, out, 1, norm=False)
            conv(f"backbone.fpn_output{stage + 2}", 256, 256, 3, norm=False)
        rpn = "proposal_generator.rpn_head."
        conv(f"{rpn}conv", 256, 256, 3, norm=False)
        conv(f"{rpn}objectness_logits", 3, 256, 1, norm=False)
        conv(f"{rpn}anchor_deltas", 12, 256, 1, norm=False)
        layers = {"box_head.fc1": (1024, 256 * 49), "box_head.fc2": (1024, 1024)}
        layers |= {"box_predictor.cls_score": (CLASSES + 1, 1024), "box_predictor.bbox_pred": (4 * CLASSES, 1024)}
        for name, shape in layers.items() if boxes else ():
            made |= {f"roi_heads.{name}.weight": shape, f"roi_heads.{name}.bias": shape[:1]}
        return made

    def conv(self, name: str, feature: Tensor, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        made = F.conv2d(feature, weight, self.state.get(f"{name}.bias"), stride, weight.shape[-1] // 2)
        if f"{name}.norm.weight" in self.state:
            norm = [self.state[f"{name}.norm.{each}"] for each in ("running_mean", "running_var", "weight", "bias")]
            made = F.batch_norm(made, *norm, eps=1e-5)
        return made

    def features(self, images: Tensor) -> dict[str, Tensor]:
        feature = F.max_pool2d(F.relu(self.conv("backbone.bottom_up.stem.conv1", images, 2)), 3, 2, 1)
        bottom_up = {}
        for stage, count in enumerate(self.blocks):
            for block in range(count):
                name = f"backbone.bottom_up.res{stage + 2}.{block}"
                stride = 2 if block == 0 and stage else 1
                strides = (stride, 1) if self.stride_in_1x1 else (1, stride)
                made = F.relu(self.conv(f"{name}.conv1", feature, strides[0]))
                made = self.conv(f"{name}.conv3", F.relu(self.conv(f"{name}.conv2", made, strides[1])))
                shortcut = self.conv(f"{name}.shortcut", feature, stride) if block == 0 else feature
                feature = F.relu(made + shortcut)
            bottom_up[stage + 2] = feature
        found, above = {}, None
        for number in (5, 4, 3, 2):
            lateral = self.conv(f"backbone.fpn_lateral{number}", bottom_up[number])
            above = lateral if above is None else lateral + F.interpolate(above, scale_factor=2, mode="nearest")
            found[f"p{number}"] = self.conv(f"backbone.fpn_output{number}", above)
        return {**found, "p6": F.max_pool2d(found["p5"], 1, 2)}

    def rpn(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, cells x 3) and deltas (N, cells x 3, 4), anchors of a cell together."""
        head = "proposal_generator.rpn_head."
        hidden = F.relu(self.conv(f"{head}conv", feature))
        logits = self.conv(f"{head}objectness_logits", hidden).permute(0, 2, 3, 1).flatten(1)
        deltas = self.conv(f"{head}anchor_deltas", hidden)
        count, _, height, width = deltas.shape
        return logits, deltas.view(count, -1, 4, height, width).permute(0, 3, 4, 1, 2).flatten(1, 3)

    def boxes(self, feature: Tensor, stride: int, rois: Tensor) -> tuple[Tensor, Tensor]:
        hidden = roi_align(feature, [rois], 7, 1 / stride, 0, aligned=True).flatten(1)
        for name in ("fc1", "fc2"):
            hidden = F.relu(self.linear(f"box_head.{name}", hidden))
        return self.linear("box_predictor.cls_score", hidden), self.linear("box_predictor.bbox_pred", hidden)

    def linear(self, name: str, rows: Tensor) -> Tensor:
        return F.linear(rows, self.state[f"roi_heads.{name}.weight"], self.state[f"roi_heads.{name}.bias"])
