"""Named models, shipped weights, and converters from other libraries' checkpoints and to them."""

from .interop import from_state, to_state
from .models import MODELS, build, default_preprocess
from .torchvision import from_torchvision, torchvision_preprocess

__all__ = [
    "MODELS",
    "build",
    "default_preprocess",
    "from_state",
    "from_torchvision",
    "to_state",
    "torchvision_preprocess",
]
