"""Heads that read a pyramid: the same weights on every level."""

from .fast_rcnn import FastRCNNConfig, FastRCNNHead
from .rpn import RPNConfig, RPNHead

__all__ = ["FastRCNNConfig", "FastRCNNHead", "RPNConfig", "RPNHead"]
