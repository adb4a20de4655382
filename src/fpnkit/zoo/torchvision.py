"""Detectors of torchvision, weights and all, as ours.

Both compute the same, so a torchvision checkpoint can be evaluated, fine-tuned, exported and served here. Where
torchvision differs from the paper, settings reproduce it: anchors centred on the corner of their cell and rounded to
pixels, strides taken from the padded image, RoIAlign without the half-pixel shift, shrinking without smoothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from ..backbones import wrap
from ..data.pixels import PreprocessConfig
from ..detectors import FasterRCNN
from ..errors import ConfigError
from ..heads import FastRCNNConfig, FastRCNNHead, Postprocess, RPNConfig, RPNHead
from ..ops.roi import CANONICAL_SIZE, K0
from ..pyramids import FPN
from ..structures import LevelSpec


def from_torchvision(model: nn.Module) -> FasterRCNN:
    """A torchvision Faster R-CNN with FPN as our `FasterRCNN`.

    Args:
        model: of `fasterrcnn_resnet50_fpn(...)`, or torchvision's `FasterRCNN` on any `resnet_fpn_backbone(...)`.
            Its weights are copied; it is not changed.
    Returns:
        A detector that finds the same boxes, in the mode (training or inference) and on the device of `model`. Our
        labels are torchvision's minus 1: its background is class 0, ours is internal. What is frozen in the backbone
        stays frozen. Feed it images prepared by `Preprocess(torchvision_preprocess(model))`.
    Raises:
        ConfigError: not a torchvision Faster R-CNN with FPN, or one with parts that have no counterpart here.
    """
    theirs = _checked(model)
    backbone = wrap(copy.deepcopy(theirs.backbone.body))
    pyramid = FPN(backbone.levels, theirs.backbone.out_channels, extra_levels=1)
    rpn = RPNHead(pyramid.levels, _rpn_config(theirs.rpn, pyramid.levels))
    num_classes = theirs.roi_heads.box_predictor.cls_score.out_features - 1
    config = _roi_config(theirs.roi_heads)
    roi = FastRCNNHead(pyramid.levels, num_classes, roi_levels=len(backbone.levels), config=config)

    _copy_pyramid(theirs.backbone.fpn, pyramid)
    _copy_rpn(theirs.rpn.head, rpn)
    _copy_roi(theirs.roi_heads, roi)
    postprocess = _postprocess(theirs.roi_heads)
    detector = FasterRCNN(backbone=backbone, pyramid=pyramid, rpn=rpn, roi=roi, postprocess=postprocess)
    return detector.to(next(theirs.parameters()).device).train(theirs.training)


def torchvision_preprocess(model: nn.Module) -> PreprocessConfig:
    """The image size and normalisation of a torchvision Faster R-CNN, for use outside the model.

    Args:
        model: as for `from_torchvision`.
    Returns:
        The config of `Preprocess`. Of some original sizes, about one in twenty, torchvision's rounding errors lose
        a pixel of the resized side, and only there a side of ours is one pixel longer.
    Raises:
        ConfigError: not a torchvision Faster R-CNN with FPN, or one that warps every image to one size.
    """
    transform = _checked(model).transform
    _require(transform.fixed_size is None, "images resized by their sides", f"fixed_size {transform.fixed_size}")
    return PreprocessConfig(
        short_side=transform.min_size[-1],
        long_side=transform.max_size,
        mean=tuple(transform.image_mean),
        std=tuple(transform.image_std),
        pad_to=transform.size_divisible,
        antialias=False,
    )


def _checked(model: Any) -> Any:
    """The same model, now known to be made of parts that exist here."""
    _require_type("model", model, TorchvisionFasterRCNN)
    _require_type("backbone", model.backbone, BackboneWithFPN)
    fpn, heads = model.backbone.fpn, model.roi_heads
    _require_type("backbone.fpn.extra_blocks", fpn.extra_blocks, LastLevelMaxPool)
    _require_type("roi_heads.box_head", heads.box_head, TwoMLPHead)
    _require_type("roi_heads.box_predictor", heads.box_predictor, FastRCNNPredictor)
    _require(len(fpn.inner_blocks[0]) == 1, "an FPN of plain convolutions", "norm layers in it")
    sizes, depth = model.rpn.anchor_generator.sizes, len(model.rpn.head.conv)
    _require(all(len(each) == 1 for each in sizes), "one anchor size a level", f"{sizes}")
    _require(depth == 1, "an RPN head with one 3x3 convolution", f"{depth}")
    _require(not (heads.has_mask() or heads.has_keypoint()), "boxes only", "a mask or keypoint head")
    pool, names = heads.box_roi_pool, list(model.backbone.body.return_layers.values())
    pooled = [name for name in [*names, "pool"] if name in pool.featmap_names]
    _require(pooled == names, f"RoIs pooled from the maps {names}", f"{pooled}")
    eq1 = (pool.canonical_scale, pool.canonical_level)
    _require(eq1 == (CANONICAL_SIZE, K0), f"eq. 1 with scale {CANONICAL_SIZE:.0f} and level {K0}", f"{eq1}")
    return model


def _require_type(part: str, value: object, wanted: type) -> None:
    _require(
        isinstance(value, wanted),
        f"{part} of type {wanted.__name__}",
        f"{type(value).__module__}.{type(value).__name__}",
    )


def _require(fine: bool, expected: str, found: str) -> None:
    if not fine:
        raise ConfigError(
            f"cannot convert this torchvision detector: expected {expected}, got {found}; "
            "fasterrcnn_resnet50_fpn(...) and FasterRCNN on resnet_fpn_backbone(...) can be converted"
        )


def _rpn_config(rpn: Any, levels: tuple[LevelSpec, ...]) -> RPNConfig:
    sizes, ratios = rpn.anchor_generator.sizes, rpn.anchor_generator.aspect_ratios
    scales = {size / level.stride for level, (size,) in zip(levels, sizes, strict=True)}
    _require(
        len(scales) == 1, f"anchor sizes in proportion to strides {[level.stride for level in levels]}", f"{sizes}"
    )
    _require(len(set(ratios)) == 1, "the same anchor ratios on every level", f"aspect_ratios {ratios}")
    _require(rpn.score_thresh <= 0, "no threshold on objectness", f"rpn_score_thresh {rpn.score_thresh}")
    return RPNConfig(
        anchor_scale=scales.pop(),
        ratios=tuple(ratios[0]),
        positive_iou=rpn.proposal_matcher.high_threshold,
        negative_iou=rpn.proposal_matcher.low_threshold,
        samples=rpn.fg_bg_sampler.batch_size_per_image,
        positive_fraction=rpn.fg_bg_sampler.positive_fraction,
        per_level=rpn._pre_nms_top_n["testing"],
        proposals=rpn._post_nms_top_n["testing"],
        train_per_level=rpn._pre_nms_top_n["training"],
        train_proposals=rpn._post_nms_top_n["training"],
        nms_iou=rpn.nms_thresh,
        min_side=rpn.min_size,
        anchor_offset=0.0,
        round_anchors=True,
        strides_from_image=True,
    )


def _roi_config(heads: Any) -> FastRCNNConfig:
    matcher = heads.proposal_matcher
    one_iou = matcher.high_threshold == matcher.low_threshold
    _require(
        one_iou, "equal box_fg_iou_thresh and box_bg_iou_thresh", f"{matcher.high_threshold}, {matcher.low_threshold}"
    )
    return FastRCNNConfig(
        hidden=heads.box_head.fc6.out_features,
        pooled=heads.box_roi_pool.output_size[0],
        sampling_ratio=heads.box_roi_pool.sampling_ratio,
        aligned=False,
        delta_weights=tuple(heads.box_coder.weights),
        positive_iou=matcher.high_threshold,
        samples=heads.fg_bg_sampler.batch_size_per_image,
        positive_fraction=heads.fg_bg_sampler.positive_fraction,
    )


def _postprocess(heads: Any) -> Postprocess:
    return Postprocess(min_score=heads.score_thresh, nms_iou=heads.nms_thresh, detections=heads.detections_per_img)


def _copy_pyramid(fpn: Any, pyramid: FPN) -> None:
    for level, inner, layer in zip(pyramid.in_levels, fpn.inner_blocks, fpn.layer_blocks, strict=True):
        _copy(inner[0], pyramid.lateral[level.name])
        _copy(layer[0], pyramid.smooth[level.name])


def _copy_rpn(head: Any, rpn: RPNHead) -> None:
    _copy(head.conv[0][0], rpn.conv)
    _copy(head.cls_logits, rpn.objectness)
    _copy(head.bbox_pred, rpn.deltas)


def _copy_roi(heads: Any, roi: FastRCNNHead) -> None:
    _copy(heads.box_head.fc6, roi.fc1)
    _copy(heads.box_head.fc7, roi.fc2)
    _copy(heads.box_predictor.cls_score, roi.scores, lambda rows: rows.roll(-1, dims=0))
    _copy(heads.box_predictor.bbox_pred, roi.deltas, lambda rows: rows[4:])


@torch.no_grad()
def _copy(source: nn.Module, target: nn.Module, rows: Callable[[Tensor], Tensor] = lambda rows: rows) -> None:
    for name, parameter in target.named_parameters():
        parameter.copy_(rows(source.get_parameter(name)))
