"""The folder that a verb writes to, checked before any work is done for it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..errors import ConfigError


def require_folder(path: Path) -> None:
    """Make a folder if need be.

    Raises:
        ConfigError: it cannot be made, or nothing can be written there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise ConfigError(f"--out {path}: not a folder that can be written to: {error.strerror}") from None
