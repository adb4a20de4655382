"""Pyramids: level specs in, level specs out. Every part takes and returns level name -> map."""

from .baselines import FeatureHierarchy, FinestLevel, SingleMap, TopDownOnly
from .bifpn import BiFPN
from .config import PyramidConfig, make_pyramid
from .fpn import FPN
from .image_pyramid import ImagePyramid
from .pan import PAN
from .pyramid import Pyramid

PYRAMIDS: dict[str, type[Pyramid]] = {
    "fpn": FPN,
    "pan": PAN,
    "bifpn": BiFPN,
    "single_map": SingleMap,
    "feature_hierarchy": FeatureHierarchy,
    "top_down_only": TopDownOnly,
    "finest_level": FinestLevel,
    "image_pyramid": ImagePyramid,
}
"""Name -> class: what `PyramidConfig.name` may be. A class takes (levels, channels, *, its own options)."""

__all__ = [
    "FPN",
    "PAN",
    "PYRAMIDS",
    "BiFPN",
    "FeatureHierarchy",
    "FinestLevel",
    "ImagePyramid",
    "Pyramid",
    "PyramidConfig",
    "SingleMap",
    "TopDownOnly",
    "make_pyramid",
]
