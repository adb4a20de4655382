"""Networks from specs."""

from __future__ import annotations

from typing import Any

from ..backbones import make_backbone
from ..detectors import RPN, Detector, FasterRCNN, FastRCNN
from ..errors import ConfigError
from ..heads import CascadeHead, FastRCNNHead, RPNHead
from ..pyramids import make_pyramid
from .presets import preset
from .spec import ModelSpec


def build(spec: ModelSpec | str, num_classes: int) -> Detector:
    """A detector with random weights; `fpnkit.weights.InitialWeights` fills it.

    Args:
        spec: a model, or the name of a preset.
        num_classes: classes, without background.
    Raises:
        ConfigError: no such preset; parts that do not fit together; a spec without `rpn` or without `roi`.
    """
    network = build_network(spec, num_classes)
    if not isinstance(network, Detector):
        raise ConfigError(
            f"a detector expects both rpn and roi; a spec of {type(network).__name__} alone is built by build_network"
        )
    return network


def build_network(spec: ModelSpec | str, num_classes: int) -> RPN | FastRCNN | FasterRCNN:
    """What a spec describes, also an RPN or a Fast R-CNN alone, with random weights.

    Args:
        spec, num_classes: as for `build`; an RPN knows no classes.
    Raises:
        ConfigError: as `build`.
    """
    spec = preset(spec) if isinstance(spec, str) else spec
    backbone = make_backbone(spec.backbone)
    pyramid = make_pyramid(spec.pyramid, backbone.levels)
    parts: dict[str, Any] = {"backbone": backbone, "pyramid": pyramid}
    if spec.rpn is not None:
        parts["rpn"] = RPNHead(pyramid.levels, spec.rpn)
    if spec.roi is None:
        return RPN(**parts)
    own: dict[str, Any] = {"roi_levels": len(backbone.levels), "config": spec.roi}  # the levels above are for the RPN
    if spec.cascade is None:
        parts["roi"] = FastRCNNHead(pyramid.levels, num_classes, **own)
    else:
        parts["roi"] = CascadeHead(pyramid.levels, num_classes, cascade=spec.cascade, **own)
    kind = FastRCNN if spec.rpn is None else FasterRCNN
    return kind(**parts, postprocess=spec.postprocess)
