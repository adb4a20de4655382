"""Pyramids: level specs in, level specs out. Every part takes and returns level name -> map."""

from .fpn import FPN
from .pyramid import Pyramid

__all__ = ["FPN", "Pyramid"]
