"""Names of image files, and paths that files name. Imports nothing heavy: help texts are made of the data formats."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""What counts as an image when a folder is searched."""

_DRIVE = re.compile("[A-Za-z]:")


def leads_out(name: str) -> bool:
    """Whether a path that a file names leaves the folder that it is relative to."""
    place = PurePosixPath(slashed(name))
    return place.is_absolute() or ".." in place.parts or bool(_DRIVE.match(name))


def slashed(name: str) -> str:
    """A file_name as written on Windows, too."""
    return name.replace("\\", "/")
