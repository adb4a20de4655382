"""How operators of our own are registered with torch."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

_TAGS: dict[str, Any] = {"tags": [torch.Tag.cudagraph_unsafe]} if hasattr(torch.Tag, "cudagraph_unsafe") else {}
"""Ours wait for the GPU and must stay outside of CUDA graphs. Older torch has no such tag, and graphs without them."""

register = partial(torch.library.custom_op, mutates_args=(), **_TAGS)
"""`torch.library.custom_op` for operators that change no input."""
