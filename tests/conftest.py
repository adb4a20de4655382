"""What every test shares: a fixed seed, property tests that repeat, and signals that do no harm."""

from __future__ import annotations

import ctypes
import sys

import pytest
import torch
from hypothesis import settings
from torch.utils.data._utils import signal_handling

settings.register_profile("fpnkit", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("fpnkit")

signal_handling._SIGCHLD_handler_set = True  # torch's loaders need not hear of other tests' children

SS_DISABLE = 2


class SignalStack(ctypes.Structure):
    """The system's `stack_t`."""

    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))


@pytest.fixture(autouse=True)
def signals_on_the_usual_stack() -> None:
    """A library that tests load leaves a stack for signal handlers behind that is gone, or too small, when one runs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).sigaltstack(ctypes.byref(SignalStack(None, SS_DISABLE, 0)), None)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)
