"""What every test shares: a fixed seed, and property tests that repeat."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings
from torch.utils.data._utils import signal_handling

settings.register_profile("fpnkit", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("fpnkit")


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


# torch's loaders install a handler of SIGCHLD, which runs on the small stack that faulthandler sets aside. What some
# libraries here keep in registers does not fit there, and the next child that ends would crash the tests.
signal_handling._SIGCHLD_handler_set = True
