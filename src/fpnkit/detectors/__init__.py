"""Whole detectors: parts passed in, keyword-only."""

from .fast_rcnn import FastRCNN
from .faster_rcnn import FasterRCNN
from .pyramid_detector import PyramidDetector
from .rpn import RPN

__all__ = ["RPN", "FastRCNN", "FasterRCNN", "PyramidDetector"]
