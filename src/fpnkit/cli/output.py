"""The folder that a verb writes to, checked before any work is done for it; and parameters in errors as options."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import ConfigError, FpnkitError


@contextlib.contextmanager
def named_by_options(options: Mapping[str, str]) -> Iterator[None]:
    """Let errors of the library, which name parameters, name the options of a verb.

    Args:
        options: words of the library -> those of the command line.
    """
    try:
        yield
    except FpnkitError as error:
        text = str(error)
        for parameter, option in options.items():
            text = text.replace(parameter, option)
        raise type(error)(text) from None


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
