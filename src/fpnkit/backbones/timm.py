"""Backbones of the timm library, by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import timm as timm_library
import torch
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError
from .same_padding import simplify_same_padding
from .wrap import Backbone, wrap


def timm(
    name: str,
    *,
    pretrained: bool = False,
    strides: Sequence[int] = (4, 8, 16, 32),
    frozen_stages: int = 0,
    freeze_batch_norm: bool = True,
) -> Backbone:
    """A timm network as C2..C5, through its `features_only` form.

    Args:
        name: any timm model that offers features, `resnet50` or `convnext_tiny`.
        pretrained: let timm download its ImageNet weights; the only way this function reaches the network.
        strides: which maps to take.
        frozen_stages: how many stages from the stem on get no gradient, as in the paper's fine-tuning; 1 is the
            stem with the stage of the first map.
        freeze_batch_norm: keep batch norms as they are (small batches spoil their statistics).
    Returns:
        A `Backbone` with probed levels.
    Raises:
        ConfigError: no such model, or a stride that it does not have.
    """
    network = _create(name, pretrained, strides)
    simplify_same_padding(network)
    return wrap(network).freeze(_stages(network, frozen_stages), batch_norm=freeze_batch_norm)


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
    own = {name: value for name, value in backbone.body.state_dict().items() if value.ndim}
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
    backbone.body.load_state_dict(pairs, strict=False)


def _create(name: str, pretrained: bool, strides: Sequence[int]) -> Any:
    known = timm_library.list_models()
    base = name.split(".")[0]
    if base not in known:
        near = difflib.get_close_matches(base, known, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
        raise ConfigError(f"timm has no model named {name!r}: {hint}")
    with torch.device("meta"):
        probe: Any = timm_library.create_model(name, features_only=True)
    reductions = probe.feature_info.reduction()
    missing = [stride for stride in strides if stride not in reductions]
    if missing:
        raise ConfigError(f"{name} has maps of strides {reductions}, not {missing}: pass strides=... from these")
    indices = [reductions.index(stride) for stride in strides]
    return timm_library.create_model(name, pretrained=pretrained, features_only=True, out_indices=indices)


def _stages(network: Any, count: int) -> list[nn.Module]:
    """The modules that run before the `count`-th map is out, in timm's own naming of where each map is taken."""
    if count == 0:
        return []
    taken_at = [entry["module"] for entry in network.feature_info.get_dicts()]
    if not 0 <= count <= len(taken_at):
        raise ConfigError(
            f"frozen_stages is {count}, the backbone has {len(taken_at)} stages: pass 0 to {len(taken_at)}"
        )
    modules = list(network.named_modules())
    last = max(i for i, (name, _) in enumerate(modules) if _inside(name, taken_at[count - 1]))
    ends = [i + sum(1 for _ in module.modules()) - 1 for i, (_, module) in enumerate(modules)]
    return [module for (_, module), end in zip(modules, ends, strict=True) if end <= last]


def _inside(name: str, prefix: str) -> bool:
    flat_name, flat_prefix = name.replace(".", "_"), prefix.replace(".", "_")
    return flat_name == flat_prefix or flat_name.startswith(flat_prefix + "_")
