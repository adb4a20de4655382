"""What a part of a network is given and what it gives, while the whole runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from torch import nn


@contextlib.contextmanager
def recorded(part: nn.Module) -> Iterator[list[tuple[tuple, Any]]]:
    """The part's calls in the block, positional inputs and output of each: one pass shows more than it returns.

    Calls of other threads are left out: they have images of their own.
    """
    thread, calls = threading.get_ident(), []

    def note(part: nn.Module, given: tuple, output: Any) -> None:
        if threading.get_ident() == thread:
            calls.append((given, output))

    hook = part.register_forward_hook(note)
    try:
        yield calls
    finally:
        hook.remove()
