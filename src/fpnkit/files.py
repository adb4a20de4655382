"""Files: written whole or not at all, hashed, checked before they are read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import CheckpointError


@contextlib.contextmanager
def replaced_whole(path: Path) -> Iterator[Path]:
    """Write to a temporary file beside `path`, then put it in place: a reader sees the old or the new one, whole.

    Raises:
        CheckpointError: it cannot be written, a full disk for one; the file that was there stays as it was.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: could not be written: {cause_of(error)}; what was there before is unharmed"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON, replaced whole."""
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))  # file names need not be Unicode


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, replaced whole. Pictures come this way, too: Pillow does not notice a disk that fills up."""
    with replaced_whole(path) as temporary:
        temporary.write_bytes(content)


def require_file(path: Path) -> None:
    """
    Raises:
        CheckpointError: nothing is there, or no file, or an empty one.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty")


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cause_of(error: BaseException) -> str:
    """The system's word for a failed write, on which torch puts errors of its own."""
    while error.__context__ is not None and not isinstance(error, OSError):
        error = error.__context__
    return getattr(error, "strerror", None) or str(error)
