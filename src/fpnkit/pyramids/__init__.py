"""Pyramids: level specs in, level specs out. Every part takes and returns level name -> map."""

from .baselines import FeatureHierarchy, FinestLevel, SingleMap, TopDownOnly
from .bifpn import BiFPN
from .fpn import FPN
from .image_pyramid import ImagePyramid
from .pan import PAN
from .pyramid import Pyramid

__all__ = [
    "FPN",
    "PAN",
    "BiFPN",
    "FeatureHierarchy",
    "FinestLevel",
    "ImagePyramid",
    "Pyramid",
    "SingleMap",
    "TopDownOnly",
]
