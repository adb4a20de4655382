"""Bottom-up pathways: anything that turns images into maps C2..C5 of declared strides and channels."""

from .config import BackboneConfig, make_backbone
from .nodes import nodes
from .timm import timm
from .wrap import Backbone, probe_levels, wrap

__all__ = ["Backbone", "BackboneConfig", "make_backbone", "nodes", "probe_levels", "timm", "wrap"]
