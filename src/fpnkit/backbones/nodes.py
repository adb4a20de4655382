"""Backbones from the inside of any network, by naming where its maps are."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from ..errors import ConfigError
from .wrap import Backbone, wrap


def nodes(module: nn.Module, names: Sequence[str], *, in_channels: int = 3) -> Backbone:
    """Take maps at named places of a network, such as a torchvision classifier.

    What comes after the last map is left out; weights are shared with `module` and keep their names.

    Args:
        module: takes (N, in_channels, H, W). torch.fx must be able to trace it.
        names: modules or operations whose results are the maps, finest first: `layer1`, `features.3`. See
            `torchvision.models.feature_extraction.get_graph_node_names`.
        in_channels: channels of the probing image.
    Returns:
        A `Backbone` with probed levels; freeze parts with `backbone.freeze([backbone.body.layer1])`.
    Raises:
        ConfigError: no such place, or the network cannot be traced.
        ShapeError: the results are not maps from fine to coarse.
    """
    try:
        known = get_graph_node_names(module)[1]
    except Exception as error:  # tracing runs the module's own code, which may raise anything
        raise ConfigError(
            f"{type(module).__name__} cannot be traced by torch.fx ({error}): "
            "return the maps from its forward and use fpnkit.backbones.wrap"
        ) from error
    places = {".".join(parts[: i + 1]) for parts in (each.split(".") for each in known) for i in range(len(parts))}
    for name in names:
        if name not in places:
            near = difflib.get_close_matches(name, sorted(places), n=3)
            hint = f"did you mean {', '.join(near)}?" if near else f"it has {', '.join(known[:8])}, ..."
            raise ConfigError(f"{type(module).__name__} has no node {name!r}: {hint}")
    return wrap(create_feature_extractor(module, {name: name for name in names}), in_channels=in_channels)
