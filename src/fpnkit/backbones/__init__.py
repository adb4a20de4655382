"""Bottom-up pathways: anything that turns images into maps C2..C5 of declared strides and channels."""

from .nodes import nodes
from .timm import timm
from .wrap import Backbone, probe_levels, wrap

__all__ = ["Backbone", "nodes", "probe_levels", "timm", "wrap"]
