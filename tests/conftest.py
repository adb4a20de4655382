"""What every test shares: a fixed seed, and property tests that repeat."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

settings.register_profile("fpnkit", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("fpnkit")


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)
