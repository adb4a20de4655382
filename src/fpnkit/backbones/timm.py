"""Backbones of the timm library, by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import partial
from typing import Any

import timm as timm_library
import torch
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError
from ..structures import LevelSpec
from .adapters import as_maps, innermost, round_up
from .fit import Build, Fit, find_fits, keeps_strides, native_size, on_meta
from .same_padding import simplify_same_padding
from .wrap import Backbone, name_levels, run_blank


def timm(
    name: str,
    *,
    pretrained: bool = False,
    strides: Sequence[int] | None = None,
    image_size: tuple[int, int] | None = None,
    frozen_stages: int = 0,
    freeze_batch_norm: bool = True,
) -> Backbone:
    """A timm network as C2..C5, through its `features_only` form.

    Strides are measured and maps come channels-first. Images may have any size: they are padded to what the network
    takes, and its maps cut to the image. A network of one stride, such as a ViT, gets a `SimplePyramid`.

    Args:
        name: any timm model that offers features, `resnet50` or `convnext_tiny`.
        pretrained: let timm download its ImageNet weights; the only way this function reaches the network.
        strides: which maps to take; all from 4 to 32 unless given.
        image_size: height and width of the largest image, for a network that is built for one size.
        frozen_stages: how many stages from the stem on get no gradient, as in the paper's fine-tuning; 1 is all that
            the first map depends on. A network of one stride counts every map that timm takes: blocks of a ViT.
        freeze_batch_norm: keep batch norms as they are (small batches spoil their statistics).
    Returns:
        A `Backbone` with probed levels.
    Raises:
        ConfigError: no such model, a stride or a size that it does not have, or more stages than there are.
    """
    build = _builder(name)
    for fit in find_fits(build, name, strides, image_size):
        network = build(pretrained=pretrained, **fit.keywords)
        simplify_same_padding(network)
        body = fit.dress(network, name)
        levels = _try(body, fit.strides, (75, 53) if fit.fixed else (max(native_size(network)) + 1, 33))
        if levels:
            break
    backbone = Backbone(body, levels)
    _hold(backbone, network, _still(build, fit, frozen_stages))
    return backbone.freeze(batch_norm=freeze_batch_norm)


def load_imagenet_weights(backbone: Backbone, state: dict[str, Tensor]) -> None:
    """Fill a backbone from a classifier's weights.

    Names may differ as long as the tensors stand in the same order with the same shapes, the way one network
    is stored by two libraries; what the classifier has beyond the last map (its head) is left out.

    Args:
        backbone: of `timm(...)`; changed in place.
        state: the classifier's state dict.
    Raises:
        CheckpointError: a tensor of the backbone has no partner of its shape at its place.
    """
    network = innermost(backbone.body)
    own = {name: value for name, value in network.state_dict().items() if value.ndim}
    given = {name: value for name, value in state.items() if value.ndim}
    if all(name in given and given[name].shape == value.shape for name, value in own.items()):
        pairs = {name: given[name] for name in own}
    else:
        pairs = dict(zip(own, given.values(), strict=False))
    for name, value in own.items():
        if name not in pairs or pairs[name].shape != value.shape:
            found = f"shape {tuple(pairs[name].shape)}" if name in pairs else "nothing"
            raise CheckpointError(
                f"backbone weights do not fit: {name} expects shape {tuple(value.shape)}, the file has {found} there: "
                "pass the ImageNet weights of the same network"
            )
    network.load_state_dict(pairs, strict=False)


def _builder(name: str) -> Build:
    known = timm_library.list_models()
    base = name.split(".")[0]
    if base not in known:
        near = difflib.get_close_matches(base, known, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
        raise ConfigError(f"timm has no model named {name!r}: {hint}")
    return partial(timm_library.create_model, name, features_only=True)


def _try(body: nn.Module, strides: Sequence[int], size: tuple[int, int]) -> tuple[LevelSpec, ...]:
    """The levels that come out for real; none if it fails, as with tables that end at the trained size."""
    try:
        maps = run_blank(body, size)
    except (RuntimeError, IndexError, AssertionError, ValueError):
        return ()
    shapes = [each.shape for each in maps]
    return name_levels(strides, [shape[1] for shape in shapes]) if keeps_strides(shapes, strides, size) else ()


def _still(build: Build, fit: Fit, stages: int) -> set[str]:
    """Names of the parameters that the first stages depend on, and of those that no level does."""
    network = on_meta(build, **fit.keywords)
    if fit.makes_pyramid and stages:
        every = range(len(network.feature_info.info))
        network = on_meta(build, **{**fit.keywords, "out_indices": tuple(every)})
    sides = fit.fixed or [round_up(side, fit.multiple) for side in native_size(network)]
    with torch.device("meta"):
        maps = as_maps(network(torch.zeros(1, 3, *sides)))
    if not 0 <= stages <= len(maps):
        raise ConfigError(f"frozen_stages is {stages}, the backbone has {len(maps)} stages: pass 0 to {len(maps)}")
    frozen, used = _leaves(maps[:stages]), _leaves(maps[-len(fit.maps) :])
    return {name for name, each in network.named_parameters() if id(each) in frozen or id(each) not in used}


def _leaves(results: Sequence[Tensor]) -> set[int]:
    """Ids of the parameters in the autograd graphs of tensors."""
    seen: set[Any] = set()
    waiting: list[Any] = [result.grad_fn for result in results]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    return {id(node.variable) for node in seen if hasattr(node, "variable")}


def _hold(backbone: Backbone, network: nn.Module, names: set[str]) -> None:
    """Freeze parameters, and the modules that have no others."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name not in names)
    learning = {module: [each.requires_grad for each in module.parameters()] for module in network.modules()}
    backbone.freeze([module for module, each in learning.items() if each and not any(each)], batch_norm=False)
