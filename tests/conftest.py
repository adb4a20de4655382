"""What every test shares: a fixed seed, and property tests that repeat."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

settings.register_profile("fpnkit", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("fpnkit")


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def default_handling_of_ended_children() -> Iterator[None]:
    """torch's loaders leave a handler of SIGCHLD behind, which runs on a stack of its own. Some of the libraries that
    tests load take that stack away, and the next child that ends crashes the process."""
    yield
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
