"""Tiny random detectors, made to detect: two stages on every pyramid, and one stage without any."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from fpnkit.backbones import wrap
from fpnkit.detectors import RPN, Detector, FasterRCNN, FastRCNN, Postprocess, PyramidNetwork
from fpnkit.heads import CascadeConfig, CascadeHead, FastRCNNConfig, FastRCNNHead, RPNConfig, RPNHead
from fpnkit.ops import boxes
from fpnkit.ops.nms import nms_keep, top_k
from fpnkit.outputs import BASE_OUTPUTS, OutputSpec
from fpnkit.pyramids import FPN, PAN, BiFPN, FeatureHierarchy, FinestLevel, ImagePyramid, SingleMap, TopDownOnly
from fpnkit.structures import ImageBatch, Targets

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
    pyramid: str = "FPN", kind: type[PyramidNetwork] = FasterRCNN, *, nms_iou: float | None = None, stages: int = 1
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
    config = FastRCNNConfig(hidden=16, canonical_size=60)
    roi = FastRCNNHead(made.levels, 3, config=config)
    if stages > 1:
        roi = CascadeHead(made.levels, 3, config=config, cascade=CascadeConfig(stages=stages))
    nn.init.normal_(rpn.objectness.weight, std=0.3)
    nn.init.normal_(rpn.deltas.weight, std=0.1)
    for head in [each for each in roi.modules() if isinstance(each, FastRCNNHead)]:
        nn.init.normal_(head.scores.weight, std=1.0)
        nn.init.normal_(head.deltas.weight, std=0.2)
    postprocess = {"postprocess": Postprocess(detections=30, nms_iou=nms_iou or 0.5)}
    heads = {
        RPN: {"rpn": rpn},
        FastRCNN: {"roi": roi, **postprocess},
        FasterRCNN: {"rpn": rpn, "roi": roi, **postprocess},
    }
    return kind(backbone=backbone, pyramid=made, **heads[kind]).eval()


class Cells(Detector):
    """A box around each cell of one map, with outputs of its own: no pyramid, no anchors, no RPN, no RoI head."""

    outputs = (
        *BASE_OUTPUTS,
        OutputSpec("centres_xy", "float32", (2,)),
        OutputSpec("codes", "float32", (3,)),
        OutputSpec("cells", "int64"),
    )

    def __init__(self, *, postprocess: Postprocess | None = None) -> None:
        super().__init__(postprocess=postprocess or Postprocess(detections=20))
        self.body = nn.Sequential(nn.Conv2d(3, 8, 9, stride=8, padding=4), nn.BatchNorm2d(8), nn.ReLU())
        self.scores, self.sides = nn.Conv2d(8, 3, 1), nn.Conv2d(8, 2, 1)

    @property
    def num_classes(self) -> int:
        return 3

    def forward(self, images: Tensor, sizes_hw: Tensor) -> dict[str, Tensor]:
        maps, numbers = self.body(images), self.postprocess
        codes = self.scores(maps).flatten(2).transpose(1, 2).sigmoid()
        scores, labels = codes.max(dim=2)
        rows, columns = (torch.arange(side, device=images.device) for side in maps.shape[-2:])
        centres = 8.0 * torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).flatten(0, 1)
        half = 6 + 6 * self.sides(maps).flatten(2).transpose(1, 2).sigmoid()
        found_xyxy = boxes.clip(torch.cat([centres - half, centres + half], dim=2), sizes_hw)
        shown = (centres < sizes_hw.flip(1)[:, None]).all(dim=2) & (scores > numbers.min_score)
        scores = scores.masked_fill(~shown, float("-inf"))
        keep = nms_keep(found_xyxy, scores, numbers.nms_iou)
        best, index, valid = top_k(scores.masked_fill(~keep, float("-inf")), numbers.detections)
        return {
            "boxes_xyxy": found_xyxy.gather(1, index[..., None].expand(-1, -1, 4)),
            "scores": best.masked_fill(~valid, 0.0),
            "labels": labels.gather(1, index),
            "centres_xy": centres[index],
            "codes": codes.gather(1, index[..., None].expand(-1, -1, 3)),
            "cells": index,
            "valid": valid,
        }

    def losses(self, batch: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        return {"scores": self.scores(self.body(batch.images)).square().mean()}


def cells(*, postprocess: Postprocess | None = None) -> Cells:
    """In inference mode; scores differ from cell to cell."""
    torch.manual_seed(0)
    made = Cells(postprocess=postprocess)
    nn.init.normal_(made.scores.weight, std=1.0)
    nn.init.normal_(made.body[1].running_mean, std=0.1)
    nn.init.uniform_(made.body[1].running_var, 0.2, 0.5)
    return made.eval()
