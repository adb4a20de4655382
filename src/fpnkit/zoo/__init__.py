"""Named models, shipped weights, and converters from other libraries' checkpoints."""

from .models import MODELS, build, default_preprocess
from .torchvision import from_torchvision, torchvision_preprocess

__all__ = ["MODELS", "build", "default_preprocess", "from_torchvision", "torchvision_preprocess"]
