"""Heads that read a pyramid: the same weights on every level."""

from ..outputs import Postprocess
from .cascade import CascadeConfig, CascadeHead
from .fast_rcnn import FastRCNNConfig, FastRCNNHead
from .rpn import RPNConfig, RPNHead

RoIHead = FastRCNNHead | CascadeHead
"""What a two-stage detector classifies and refines its proposals with."""

__all__ = [
    "CascadeConfig",
    "CascadeHead",
    "FastRCNNConfig",
    "FastRCNNHead",
    "Postprocess",
    "RPNConfig",
    "RPNHead",
    "RoIHead",
]
