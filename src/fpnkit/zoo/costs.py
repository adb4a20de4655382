"""What a model costs: parameters and multiplications, counted without weights and in a fraction of a second."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..backbones.adapters import round_up
from ..data.pixels import SizeHW
from .builder import build
from .spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class ModelCosts:
    """
    Attributes:
        parameters: of the whole detector.
        gmacs: billions of multiplications with an addition, in convolutions and matrix products, for one image.
        size_hw: height and width of that image.
    """

    parameters: int
    gmacs: float
    size_hw: SizeHW


@torch.inference_mode()
def model_costs(spec: ModelSpec, num_classes: int = 80, *, size_hw: SizeHW | None = None) -> ModelCosts:
    """Costs of one image.

    Args:
        spec: the model.
        num_classes: classes, without background.
        size_hw: of the image as the network gets it; by default the largest that `spec.preprocess` gives, padded,
            lying on its longer side.
    Raises:
        ConfigError: see `build`.
    """
    config = spec.preprocess
    if size_hw is None:
        size_hw = round_up(config.short_side, config.pad_to), round_up(config.long_side, config.pad_to)
    with torch.device("meta"):  # shapes without values
        detector = build(spec, num_classes).eval()
        counter = FlopCounterMode(display=False)
        with counter:
            detector(torch.zeros(1, 3, *size_hw), torch.tensor([size_hw], dtype=torch.float32))
    parameters = sum(each.numel() for each in detector.parameters())
    return ModelCosts(parameters=parameters, gmacs=counter.get_total_flops() / 2e9, size_hw=size_hw)
