"""Tiny random detectors on every pyramid, made to detect."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from fpnkit.backbones import wrap
from fpnkit.detectors import RPN, FasterRCNN, FastRCNN, PyramidDetector
from fpnkit.heads import CascadeHead, FastRCNNConfig, FastRCNNHead, RPNConfig, RPNHead
from fpnkit.pyramids import FPN, PAN, BiFPN, FeatureHierarchy, FinestLevel, ImagePyramid, SingleMap, TopDownOnly

PYRAMIDS = {
    "FPN": FPN,
    "FPN, residual": partial(FPN, connection="residual"),
    "FPN, batch norm": partial(FPN, norm=nn.BatchNorm2d),
    "FPN, P6 of C5": partial(FPN, extra="conv_c5"),
    "FPN, P6 of P5": partial(FPN, extra="conv_p5"),
    "ImagePyramid": ImagePyramid,
    "SingleMap": SingleMap,
    "FeatureHierarchy": FeatureHierarchy,
    "TopDownOnly": TopDownOnly,
    "FinestLevel": FinestLevel,
    "PAN": PAN,
    "BiFPN": BiFPN,
}


class Strided(nn.Module):
    """Maps of strides 4, 8, 16 and 32, straight from the image."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 8, s + 1, stride=s, padding=s // 2) for s in (4, 8, 16, 32))

    def forward(self, images: Tensor) -> list[Tensor]:
        return [torch.relu(conv(images)) for conv in self.convs]


def detector(
    pyramid: str = "FPN", kind: type[PyramidDetector] = FasterRCNN, *, nms_iou: float | None = None, stages: int = 1
):
    """A detector of three classes in inference mode; `nms_iou` of both heads is by default the usual one of each."""
    torch.manual_seed(0)
    backbone = wrap(Strided())
    made = PYRAMIDS[pyramid](backbone.levels, 8)
    if norms := [layer for layer in made.modules() if isinstance(layer, nn.BatchNorm2d)]:
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            made.features(backbone, torch.randn(2, 3, 128, 160))  # norms with real statistics let the maps through
    rpn = RPNHead(made.levels, RPNConfig(per_level=60, proposals=50, nms_iou=nms_iou or 0.7))
    config = FastRCNNConfig(hidden=16, detections=30, canonical_size=60, nms_iou=nms_iou or 0.5)
    roi = FastRCNNHead(made.levels, 3, config=config)
    if stages > 1:
        roi = CascadeHead(made.levels, 3, stages=stages, config=config)
    nn.init.normal_(rpn.objectness.weight, std=0.3)
    nn.init.normal_(rpn.deltas.weight, std=0.1)
    for head in [each for each in roi.modules() if isinstance(each, FastRCNNHead)]:
        nn.init.normal_(head.scores.weight, std=1.0)
        nn.init.normal_(head.deltas.weight, std=0.2)
    heads = {RPN: {"rpn": rpn}, FastRCNN: {"roi": roi}, FasterRCNN: {"rpn": rpn, "roi": roi}}[kind]
    return kind(backbone=backbone, pyramid=made, **heads).eval()
