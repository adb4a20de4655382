"""State dicts of torchvision's and detectron2's R50-FPN and R101-FPN, into ours and back.

The parts are the same; their names, the order of the class layers' rows and the order of the colours differ:

    here                        torchvision                      detectron2
    backbone.body.layer1.0.bn1  the same                         backbone.bottom_up.res2.0.conv1.norm
    pyramid.lateral.c2          backbone.fpn.inner_blocks.0.0    backbone.fpn_lateral2
    pyramid.smooth.c2           backbone.fpn.layer_blocks.0.0    backbone.fpn_output2
    rpn.conv                    rpn.head.conv.0.0                proposal_generator.rpn_head.conv
    rpn.objectness, rpn.deltas  rpn.head.cls_logits, .bbox_pred  .objectness_logits, .anchor_deltas there
    roi.fc1, roi.fc2            roi_heads.box_head.fc6, .fc7     roi_heads.box_head.fc1, .fc2
    roi.scores, roi.deltas      roi_heads.box_predictor.cls_score, .bbox_pred in both
    background                  class 0, with rows for its box   the last class, without
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from ..detectors import RPN, FasterRCNN
from ..errors import CheckpointError, ConfigError
from .builder import build_network
from .presets import RESNETS, preset

LIBRARIES = ("torchvision", "detectron2")

NORM_EPS = 1e-5
"""Of every batch norm here."""

_NUMBERED = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"][1:]
"""torchvision's classes behind its background."""

_UNUSED = "N/A"
"""What torchvision calls the eleven numbers that COCO never gave to a class."""

State = Mapping[str, Tensor]

BLOCKS = {"r50": 6, "r101": 23}
"""Name of a ResNet -> the blocks of its fourth stage, by which a state dict tells its own."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """What a preset's name says of the library that it comes from.

    Attributes:
        library: one of `LIBRARIES`.
        bgr: the library feeds images as BGR.
    """

    library: str
    bgr: bool = False


STYLES = {
    "torchvision_{}_fpn": Style(library="torchvision"),
    "detectron2_{}_fpn": Style(library="detectron2", bgr=True),
    "detectron2_{}_fpn_rgb": Style(library="detectron2"),
}
"""Name of presets, with the ResNet's to fill in -> the style."""


def from_state(
    state: State, library: str, *, rgb: bool = False, norm_eps: float = NORM_EPS
) -> tuple[str, FasterRCNN | RPN]:
    """A detector from a state dict of another library.

    Args:
        state: of a Faster R-CNN, or of an RPN alone, on ResNet-50 or ResNet-101 with FPN.
        library: one of `LIBRARIES`.
        rgb: a detectron2 model that strides in the 3x3 and reads RGB (`STRIDE_IN_1X1: False`, `INPUT.FORMAT: RGB`,
            ImageNet's deviations in `PIXEL_STD`); by default one of its zoo, which start from Caffe's weights.
        norm_eps: of the batch norms there. torchvision's released detectors, and all that start from them, have 0.
            What differs from ours goes into the norms' weights.
    Returns:
        The preset's name, and the detector in inference mode. A torchvision model of COCO's 91 numbers
        leaves the eleven unused ones behind.
    Raises:
        CheckpointError: it is of another model.
    """
    theirs = {_modern(name): value for name, value in state.items() if not _DERIVED.search(name)}
    pattern = f"{library}_{{}}_fpn{'_rgb' * rgb}"
    style, name = STYLES[pattern], pattern.format(_depth(theirs, library))
    scores = theirs.get(_named("roi.scores.bias", library))
    detector = _rpn(name) if scores is None else _faster_rcnn(name, len(scores) - 1)
    own = {}
    for key, value in detector.state_dict().items():
        if key.endswith("num_batches_tracked"):
            own[key] = value
        else:
            own[key] = _ours(key, _popped(theirs, _named(key, library), value), style)
    if theirs:
        raise CheckpointError(f"it has {min(theirs)} besides: not a Faster R-CNN or RPN that predicts boxes alone")
    _change_eps(own, norm_eps, NORM_EPS)
    detector.load_state_dict(own)
    return name, _without_unused(detector, name, style).eval()


def to_state(detector: nn.Module, model: str, *, norm_eps: float = NORM_EPS) -> dict[str, Tensor]:
    """The state dict that the library of a model reads.

    Args:
        detector: of one of the names that `from_state` gives.
        model: that name.
        norm_eps: of the batch norms there, see `from_state`.
    Returns:
        New tensors. torchvision's background box, which nothing reads, is zero.
    Raises:
        ConfigError: a model that no other library has.
    """
    style = style_of(model)
    own = {name: value for name, value in detector.state_dict().items() if not name.endswith("num_batches_tracked")}
    _change_eps(own, NORM_EPS, norm_eps)
    return {_named(name, style.library): _theirs(name, value, style).contiguous() for name, value in own.items()}


def style_of(model: str) -> Style:
    """The style of a model's name.

    Raises:
        ConfigError: a model that no other library has.
    """
    for pattern, style in STYLES.items():
        if model in [pattern.format(depth) for depth in RESNETS]:
            return style
    names = [pattern.format(depth) for pattern in STYLES for depth in RESNETS]
    raise ConfigError(f"{model} exists in no other library; those that do are {', '.join(names)}")


def coco_classes() -> tuple[str, ...]:
    """COCO's 80 classes in the order of both libraries."""
    return tuple(name for name in _NUMBERED if name != _UNUSED)


_DERIVED = re.compile(r"num_batches_tracked$|cell_anchors|pixel_mean$|pixel_std$")
"""Entries that follow from others, or say what a `Style` says."""


def _modern(name: str) -> str:
    """torchvision's names of before 0.13, which its released files still have."""
    name = re.sub(r"(fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)$", r"\1.0.\2", name)
    return re.sub(r"(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2", name)


def _named(name: str, library: str) -> str:
    """A name of ours in another library."""
    for pattern, replacement in _NAMES[library]:
        name = re.sub(pattern, replacement, name)
    return name


def _depth(state: State, library: str) -> str:
    stage = re.compile(
        {"torchvision": r"^backbone\.body\.layer3\.", "detectron2": r"^backbone\.bottom_up\.res4\."}[library]
    )
    blocks = {stage.sub("", name).split(".")[0] for name in state if stage.match(name)}
    for depth, expected in BLOCKS.items():
        if len(blocks) == expected:
            return depth
    raise CheckpointError(
        f"not a {library} detector on ResNet-50 or ResNet-101 with FPN: its fourth stage has {len(blocks)} blocks, "
        f"expected {' or '.join(map(str, BLOCKS.values()))}"
    )


def _popped(theirs: dict[str, Tensor], name: str, own: Tensor) -> Tensor:
    """Take an entry out of a state dict, of any shape that could become `own`."""
    value = theirs.pop(name, None)
    if value is None:
        raise CheckpointError(f"it lacks {name}: not a Faster R-CNN or RPN on ResNet with FPN")
    if value.shape[1:] != own.shape[1:]:
        raise CheckpointError(
            f"{name} has shape {tuple(value.shape)}, expected (..., {str(tuple(own.shape[1:]))[1:-1]})"
        )
    if not torch.isfinite(value).all():
        raise CheckpointError(f"{name} holds values that are not finite")
    return value.float()


def _ours(name: str, value: Tensor, style: Style) -> Tensor:
    if style.bgr and name == "backbone.body.conv1.weight":
        return value.flip(1)
    if style.library == "torchvision" and name.startswith("roi.scores."):
        return value.roll(-1, dims=0)
    if style.library == "torchvision" and name.startswith("roi.deltas."):
        return value[4:]
    return value


def _theirs(name: str, value: Tensor, style: Style) -> Tensor:
    if style.bgr and name == "backbone.body.conv1.weight":
        return value.flip(1)
    if style.library == "torchvision" and name.startswith("roi.scores."):
        return value.roll(1, dims=0)
    if style.library == "torchvision" and name.startswith("roi.deltas."):
        return torch.cat([torch.zeros_like(value[:4]), value])
    return value.clone()


def _change_eps(state: dict[str, Tensor], before: float, after: float) -> None:
    """Let norms compute the same with another epsilon."""
    if before == after:
        return
    for name in [each for each in state if each.endswith("running_var")]:
        weight = name.replace("running_var", "weight")
        state[weight] = state[weight] * ((state[name] + after) / (state[name] + before)).sqrt()


def _faster_rcnn(name: str, num_classes: int) -> FasterRCNN:
    network = build_network(name, num_classes)
    assert isinstance(network, FasterRCNN)
    return network


def _rpn(name: str) -> RPN:
    network = build_network(replace(preset(name), roi=None), 1)
    assert isinstance(network, RPN)
    return network


def _without_unused(detector: FasterRCNN | RPN, name: str, style: Style) -> FasterRCNN | RPN:
    if isinstance(detector, RPN) or style.library != "torchvision" or detector.num_classes != len(_NUMBERED):
        return detector
    used = [label for label, each in enumerate(_NUMBERED) if each != _UNUSED]
    state = detector.state_dict()
    for part in ("weight", "bias"):
        scores, deltas = (f"roi.{layer}.{part}" for layer in ("scores", "deltas"))
        state[scores] = state[scores][[*used, len(_NUMBERED)]]
        state[deltas] = state[deltas].unflatten(0, (-1, 4))[used].flatten(0, 1)
    kept = _faster_rcnn(name, len(used))
    kept.load_state_dict(state)
    return kept


def _level(prefix: str, suffix: str = ".", *, first: int = 2) -> Callable[[re.Match[str]], str]:
    return lambda found: f"{prefix}{int(found[1]) - first}{suffix}"


_NAMES = {
    "torchvision": (
        (r"^pyramid\.lateral\.c(\d)\.", _level("backbone.fpn.inner_blocks.", ".0.")),
        (r"^pyramid\.smooth\.c(\d)\.", _level("backbone.fpn.layer_blocks.", ".0.")),
        (r"^rpn\.conv\.", "rpn.head.conv.0.0."),
        (r"^rpn\.objectness\.", "rpn.head.cls_logits."),
        (r"^rpn\.deltas\.", "rpn.head.bbox_pred."),
        (r"^roi\.fc1\.", "roi_heads.box_head.fc6."),
        (r"^roi\.fc2\.", "roi_heads.box_head.fc7."),
        (r"^roi\.scores\.", "roi_heads.box_predictor.cls_score."),
        (r"^roi\.deltas\.", "roi_heads.box_predictor.bbox_pred."),
    ),
    "detectron2": (
        (r"^backbone\.body\.(conv1|bn1)\.", r"backbone.bottom_up.stem.\1."),
        (r"^backbone\.body\.layer(\d)\.", _level("backbone.bottom_up.res", first=-1)),
        (r"\.downsample\.0\.", ".shortcut."),
        (r"\.downsample\.1\.", ".shortcut.norm."),
        (r"\.bn(\d)\.", r".conv\1.norm."),
        (r"^pyramid\.lateral\.c(\d)\.", r"backbone.fpn_lateral\1."),
        (r"^pyramid\.smooth\.c(\d)\.", r"backbone.fpn_output\1."),
        (r"^rpn\.conv\.", "proposal_generator.rpn_head.conv."),
        (r"^rpn\.objectness\.", "proposal_generator.rpn_head.objectness_logits."),
        (r"^rpn\.deltas\.", "proposal_generator.rpn_head.anchor_deltas."),
        (r"^roi\.fc(\d)\.", r"roi_heads.box_head.fc\1."),
        (r"^roi\.scores\.", "roi_heads.box_predictor.cls_score."),
        (r"^roi\.deltas\.", "roi_heads.box_predictor.bbox_pred."),
    ),
}
