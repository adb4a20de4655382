"""Whole detectors: parts passed in, keyword-only; `Detector` is what everything above works with."""

from ..outputs import Postprocess
from .detector import Detector
from .fast_rcnn import FastRCNN
from .faster_rcnn import FasterRCNN
from .pyramid_network import PyramidNetwork
from .rpn import RPN

__all__ = ["RPN", "Detector", "FastRCNN", "FasterRCNN", "Postprocess", "PyramidNetwork"]
