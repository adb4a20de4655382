"""Image files: their names, the paths that other files name them by, and how large they may be.

Imports nothing heavy, for help texts need this.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""What counts as an image when a folder is searched."""

MAX_PIXELS = 100_000_000
"""Larger images are refused by default before they are decoded: a small file can hold a huge image."""

_DRIVE = re.compile("[A-Za-z]:")


def leads_out(name: str) -> bool:
    """Whether a path that a file names leaves the folder that it is relative to."""
    place = PurePosixPath(slashed(name))
    return place.is_absolute() or ".." in place.parts or bool(_DRIVE.match(name))


def slashed(name: str) -> str:
    """A file_name as written on Windows, too."""
    return name.replace("\\", "/")
