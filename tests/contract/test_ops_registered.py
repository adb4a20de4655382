"""Our two custom operators keep torch's rules: schema, fake tensors, autograd, AOT dispatch with dynamic shapes."""

from __future__ import annotations

import pytest
import torch

from fpnkit.ops.nms import nms_keep
from fpnkit.ops.roi import multi_level_roi_align

INF = float("inf")


def some_boxes(*shape: int) -> torch.Tensor:
    """(..., 4) xyxy inside 64 x 64 pixels, none empty."""
    corners = torch.rand(*shape, 2) * 40
    return torch.cat([corners, corners + 1 + torch.rand(*shape, 2) * 23], dim=-1)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 7), (3, 0)])
def test_nms_keep(rows: int, columns: int) -> None:
    scores = torch.rand(rows, columns)
    scores[:, columns // 2 :] = -INF
    torch.library.opcheck(nms_keep, (some_boxes(rows, columns), scores, 0.5))


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("rois", [0, 1, 6])
def test_multi_level_roi_align(rois: int, aligned: bool) -> None:
    features = [torch.randn(2, 3, 64 // stride, 64 // stride, requires_grad=True) for stride in (4, 8)]
    boxes = torch.cat([torch.arange(rois)[:, None] % 2, some_boxes(rois)], dim=1)
    level_index = torch.arange(rois) * 2 // max(rois, 1)
    torch.library.opcheck(multi_level_roi_align, (features, [4, 8], boxes, level_index, 3, 2, aligned))
