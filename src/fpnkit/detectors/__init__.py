"""Whole detectors: parts passed in, keyword-only."""

from .faster_rcnn import FasterRCNN

__all__ = ["FasterRCNN"]
