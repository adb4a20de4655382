"""Batch norms folded into the convolutions before them: the same network for inference, with less to do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from timm.layers import BatchNormAct2d, FrozenBatchNormAct2d
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from ..detectors import Detector, PyramidNetwork

_NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d, FrozenBatchNormAct2d)

_SIDE = 96
"""Pixels of the random image that shows which norm follows which convolution."""


def folded(detector: Detector) -> Detector:
    """A copy of a detector, in inference mode, without the batch norms that stand behind a convolution.

    Which do is seen in one pass; should the copy then compute something else, because a convolution's result is also
    used elsewhere, it is a plain copy.
    """
    plain = copy.deepcopy(detector).eval()
    image = torch.randn(1, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0))
    image = image.to(next(plain.parameters()).device)
    with torch.no_grad():
        wanted, pairs = _watched(plain, image)
        changed = copy.deepcopy(plain)
        for conv, norm in pairs:
            _fold(changed, conv, norm)
        found = _seen(changed, image)
    same = all(torch.allclose(found[name], wanted[name], rtol=1e-3, atol=1e-4) for name in wanted)
    return changed if same else plain


def _seen(detector: Detector, image: Tensor) -> dict[str, Tensor]:
    """What must not change: the pyramid, or of a detector without one all that it gives."""
    if isinstance(detector, PyramidNetwork):
        return dict(detector.features(image))
    return detector(image, torch.full((1, 2), float(_SIDE), device=image.device))


def _watched(detector: Detector, image: Tensor) -> tuple[dict[str, Tensor], list[tuple[str, str]]]:
    """What is seen of an image, and the names of convolutions and norms of which each is called once, in turn."""
    made: dict[int, str] = {}
    results: list[Tensor] = []  # kept alive, so that no address is used again
    calls: dict[str, int] = {}
    pairs: list[tuple[str, str]] = []

    def after_conv(name: str) -> Callable[..., None]:
        def note(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            made[id(output)] = name
            results.append(output)
            calls[name] = calls.get(name, 0) + 1

        return note

    def before_norm(name: str) -> Callable[..., None]:
        def note(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            calls[name] = calls.get(name, 0) + 1
            if id(inputs[0]) in made:
                pairs.append((made[id(inputs[0])], name))

        return note

    hooks = []
    for name, module in detector.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after_conv(name)))
        elif isinstance(module, _NORMS):
            hooks.append(module.register_forward_pre_hook(before_norm(name)))
    seen = _seen(detector, image)
    for hook in hooks:
        hook.remove()
    return seen, [pair for pair in pairs if all(calls[name] == 1 for name in pair)]


def _fold(detector: Detector, conv_name: str, norm_name: str) -> None:
    conv: Any = detector.get_submodule(conv_name)
    norm: Any = detector.get_submodule(norm_name)
    variance, mean = norm.running_var, norm.running_mean
    scale = (variance + norm.eps).rsqrt() * (1.0 if norm.weight is None else norm.weight)
    shift = (0.0 if norm.bias is None else norm.bias) - mean * scale
    conv.weight.mul_(scale.reshape(-1, 1, 1, 1))
    conv.bias = nn.Parameter(shift if conv.bias is None else conv.bias * scale + shift)
    activated = isinstance(norm, BatchNormAct2d | FrozenBatchNormAct2d)
    detector.set_submodule(norm_name, nn.Sequential(norm.drop, norm.act) if activated else nn.Identity())
