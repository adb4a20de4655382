"""A model as data: which parts it is made of, and with which numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..backbones import BackboneConfig
from ..data.pixels import IMAGENET_MEAN, IMAGENET_STD, PreprocessConfig
from ..errors import ConfigError
from ..heads import CascadeConfig, FastRCNNConfig, Postprocess, RPNConfig
from ..pyramids import PyramidConfig
from ..settings import as_plain, from_plain

PAPER_PREPROCESS = PreprocessConfig(short_side=800, long_side=1333, mean=IMAGENET_MEAN, std=IMAGENET_STD)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """How a network is built and fed. The default is the paper's model; `build` makes it, weights carry it.

    Which heads there are says which network it is: `rpn` and `roi` make a Faster R-CNN, with `cascade` a Cascade
    R-CNN; `rpn` alone an RPN, `roi` alone a Fast R-CNN on given proposals.

    Attributes:
        backbone, pyramid: see their configs.
        rpn: the region proposal network; None for none.
        roi: the RoI head, or what the heads of a cascade have in common; None for none.
        cascade: how many RoI heads stand in a row and how they differ; None for a single one.
        postprocess: least score, NMS threshold and number of detections; may be changed on a trained detector.
        preprocess: the size and normalisation of its images.
    Raises:
        ConfigError: no head at all, or a cascade without RoI head.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    pyramid: PyramidConfig = field(default_factory=PyramidConfig)
    rpn: RPNConfig | None = field(default_factory=RPNConfig)
    roi: FastRCNNConfig | None = field(default_factory=FastRCNNConfig)
    cascade: CascadeConfig | None = None
    postprocess: Postprocess = field(default_factory=Postprocess)
    preprocess: PreprocessConfig = PAPER_PREPROCESS

    def __post_init__(self) -> None:
        if self.rpn is None and self.roi is None:
            raise ConfigError("a model expects a head: set rpn, roi or both, got neither")
        if self.cascade is not None and self.roi is None:
            raise ConfigError("cascade says how several RoI heads differ and needs roi, got none")

    @property
    def kind(self) -> str:
        """`faster_rcnn`, `cascade_rcnn`, `rpn` or `fast_rcnn`."""
        if self.roi is None:
            return "rpn"
        if self.cascade is not None:
            return "cascade_rcnn"
        return "fast_rcnn" if self.rpn is None else "faster_rcnn"

    def __str__(self) -> str:
        library = "" if self.backbone.library == "timm" else f" ({self.backbone.library})"
        return f"{self.kind} on {self.backbone.name}{library} + {self.pyramid.name}"

    def as_plain(self) -> dict[str, Any]:
        """Every field as JSON holds it, also those at their default: so a file keeps its meaning when defaults move."""
        return as_plain(self)

    @classmethod
    def from_plain(cls, content: Any) -> ModelSpec:
        """A spec from what `as_plain` gave, perhaps of an older fpnkit: fields that are missing take their defaults.

        Raises:
            ConfigError: an unknown field, for which the nearest is named, or a value that its field cannot have.
        """
        return from_plain(cls, content)
