"""Find out by running it what a timm network needs: which sizes it takes, which strides its maps have.

What timm publishes about strides, layout and sizes is not true of every network. Networks are therefore built on
PyTorch's meta device, where tensors have shapes but no values, and run on images of several sizes: a matter of
milliseconds for a network of any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError
from .adapters import Canvas, ChannelsFirst, as_maps, round_up
from .simple_pyramid import FINEST, SimplePyramid, pyramid_strides

Build = Callable[..., Any]
"""timm's `create_model` of one name: keywords -> a network that returns maps."""

Size = tuple[int, int]

COARSEST = 32
MULTIPLES = (1, 2, 4, 8, 14, 16, 32, 64)
SPAN = 448
"""Pixels that every stride of 2^k and 7 x 2^k up to 64 divides."""
SMALL = ((75, 53), (33, 47))
"""Heights and widths that nothing divides: what works for these works for all."""
ANY_SIZE: tuple[dict[str, Any], ...] = ({}, {"dynamic_img_size": True}, {"strict_img_size": False})
"""Keywords by which timm's networks take images of any size, the first that does is used."""


@dataclass(frozen=True)
class Map:
    """One map that a network returns, as measured.

    Attributes:
        index: which of timm's `out_indices` it is.
        stride: input pixels between two cells; None if they are no whole number.
        lost: pixels that lack cells; 0 or less if there are floor(side / stride) cells or more.
        channels, channels_last: of its tensor.
    """

    index: int
    stride: int | None
    lost: int
    channels: int
    channels_last: bool

    def at(self, shape: torch.Size, size: Size) -> Map:
        """The same map, as it came from an image of this size."""
        cells = shape[1:3] if self.channels_last else shape[2:4]
        stride = self.stride or 1
        return replace(self, lost=max(stride * (side // stride - n) for side, n in zip(size, cells, strict=True)))


@dataclass(frozen=True)
class Fit:
    """How to build a network, and what to put around it; see `Canvas` and `SimplePyramid`.

    Attributes:
        options: keywords for timm's `create_model`.
        maps: those to take, finest first; a single one is made a pyramid.
        strides: of the levels.
        multiple, fixed: sides of the images that the network takes.
    """

    options: dict[str, Any]
    maps: tuple[Map, ...]
    strides: tuple[int, ...]
    multiple: int = 1
    fixed: tuple[int, int] | None = None

    @property
    def keywords(self) -> dict[str, Any]:
        """What timm's `create_model` gets."""
        return {"out_indices": tuple(each.index for each in self.maps), **self.options}

    @property
    def makes_pyramid(self) -> bool:
        """Whether all levels come from one map."""
        return self.strides != tuple(each.stride for each in self.maps)

    @property
    def margin(self) -> int:
        """Pixels to add so that every map covers the image."""
        return max(0, *(each.lost for each in self.maps))

    def dress(self, network: nn.Module, name: str) -> nn.Module:
        """The network with the adapters that it needs, and no others: without any, its weights keep their names."""
        body = network
        if any(each.channels_last for each in self.maps):
            body = ChannelsFirst(body, [each.channels_last for each in self.maps])
        if self.makes_pyramid:
            (only,) = self.maps
            body = SimplePyramid(body, channels=only.channels, stride=only.stride or 1, strides=self.strides)
        if self.multiple > 1 or self.margin or self.fixed:
            body = Canvas(
                body,
                name=name,
                strides=self.strides,
                multiple=self.multiple,
                fixed=self.fixed,
                margin=self.margin,
                starts=self._starts(),
            )
        return body

    def _starts(self) -> list[int]:
        """The cell of each level whose centre is nearest to that of the image's first."""
        lost = [each.lost for each in self.maps] * (len(self.strides) // len(self.maps))
        shifts = [self.margin // 2 - each / 2 if self.margin else 0.0 for each in lost]
        return [max(0, round(shift / stride)) for shift, stride in zip(shifts, self.strides, strict=True)]


def find_fits(
    build: Build, name: str, strides: Sequence[int] | None, image_size: tuple[int, int] | None
) -> Iterator[Fit]:
    """Ways to build a network, best first. The meta device has no values, so the caller tries each for real.

    Args:
        build: timm's `create_model` of this name.
        name: of the network, for errors.
        strides: those to take; None takes all from 4 to 32.
        image_size: height and width to build for; None prefers a network that takes any size.
    Raises:
        ConfigError: it lacks strides, or cannot be built for the image size; after the last fit, that none is left.
    """
    if image_size is None:
        for options in ANY_SIZE:
            yield from _for_any_size(build, name, strides, options)
    yield from _for_one_size(build, name, strides, image_size)
    raise ConfigError(f"{name} runs on no image that was tried: take another timm model, or wrap a module of your own")


def _for_any_size(build: Build, name: str, wanted: Sequence[int] | None, options: dict[str, Any]) -> Iterator[Fit]:
    network = on_meta(build, **options)
    if network is None:
        return
    native = max(native_size(network))
    for multiple in (*MULTIPLES, native):
        span, narrow = math.lcm(SPAN, multiple), round_up(max(map(max, SMALL)), multiple)
        near = (round_up(native + 1, span), narrow)
        far = (near[0] + span, narrow)
        shapes = _shapes(network, near), _shapes(network, far)
        maps = _measure(network, near, far, *shapes) if all(shapes) else []
        if any(each.stride for each in maps):
            fit = Fit(options, *_choose(name, maps, wanted), multiple)
            chosen = on_meta(build, **fit.keywords)
            with torch.device("meta"):
                body = fit.dress(chosen, name)
            if all(keeps_strides(_shapes(body, size), fit.strides, size) for size in SMALL):
                yield fit
                return


def _for_one_size(
    build: Build, name: str, wanted: Sequence[int] | None, image_size: tuple[int, int] | None
) -> Iterator[Fit]:
    network = on_meta(build)
    if network is None:
        return
    native = native_size(network)
    larger = (3 * native[0], 3 * native[1])
    maps = _measure(network, native, larger, _shapes(network, native), _shapes(on_meta(build, img_size=larger), larger))
    if not maps:
        return
    fit = Fit({}, *_choose(name, maps, wanted), fixed=native)
    if image_size:
        height, width = (round_up(side + fit.margin, COARSEST) for side in image_size)
        shapes = _shapes(on_meta(build, img_size=(height, width)), (height, width))
        if not shapes:
            raise ConfigError(
                f"{name} cannot be built for images of {image_size[0]}x{image_size[1]}: leave image_size out, "
                f"or try a square, or a multiple of its own size {native[0]}x{native[1]}"
            )
        maps = [each.at(shape, (height, width)) for each, shape in zip(maps, shapes, strict=True)]
        fit = Fit({"img_size": (height, width)}, *_choose(name, maps, wanted), fixed=(height, width))
    yield fit


def _measure(
    network: Any, near: Size, far: Size, near_shapes: list[torch.Size], far_shapes: list[torch.Size]
) -> list[Map]:
    """What maps are at a size and at a larger one. Without the larger one, only strides that divide the size count."""
    maps = []
    for i, shape in enumerate(near_shapes):
        channels_last = bool(far_shapes) and shape[1] != far_shapes[i][1]
        rows = 1 if channels_last else 2
        pixels, cells = near[0], shape[rows]
        if far_shapes:
            pixels, cells = far[0] - pixels, far_shapes[i][rows] - cells
        stride = pixels // cells if cells > 0 and pixels % cells == 0 else None
        index = network.feature_info.out_indices[i]
        maps.append(Map(index, stride, 0, shape[3 if channels_last else 1], channels_last).at(shape, near))
    return maps


def _choose(name: str, maps: list[Map], wanted: Sequence[int] | None) -> tuple[tuple[Map, ...], tuple[int, ...]]:
    """The last map of each stride that is taken, with the strides of the levels."""
    by_stride = {each.stride: each for each in sorted(maps, key=lambda each: each.stride or 0) if each.stride}
    plain = len(by_stride) == 1
    offered = pyramid_strides(*by_stride) if plain else tuple(by_stride)
    strides = tuple(sorted(wanted or (each for each in offered if plain or FINEST <= each <= COARSEST)))
    missing = [each for each in strides if each not in offered]
    if missing:
        raise ConfigError(f"{name} has maps of strides {list(offered)}, not {missing}: pass strides=... from these")
    if len(strides) < 2 and wanted is None:
        raise ConfigError(
            f"{name} has maps of strides {list(offered)}, and a pyramid takes two or more from {FINEST} to {COARSEST}: "
            "pass strides=... from these, or take another model"
        )
    return tuple(by_stride.values() if plain else (by_stride[each] for each in strides)), strides


def on_meta(build: Build, **options: Any) -> Any:
    """The network without weights, in inference mode; None if it does not know an option, or not with that value."""
    try:
        with torch.device("meta"):
            return build(**options).eval()
    except Exception:  # networks refuse options by TypeError, AssertionError, RuntimeError and others
        return None


def native_size(network: Any) -> Size:
    """Height and width of the images that it was trained on."""
    height, width = network.pretrained_cfg["input_size"][-2:]
    return height, width


def keeps_strides(shapes: Sequence[torch.Size], strides: Sequence[int], size: Size) -> bool:
    """Whether each map has floor to ceil of side / stride cells."""
    return bool(shapes) and all(
        side // stride <= cells <= -(-side // stride)
        for shape, stride in zip(shapes, strides, strict=True)
        for cells, side in zip(shape[-2:], size, strict=True)
    )


@torch.no_grad()
def _shapes(network: Any, size: Size) -> list[torch.Size]:
    """Shapes of a meta network's maps; none if it cannot take the size."""
    try:
        with torch.device("meta"):
            return [each.shape for each in as_maps(network(torch.zeros(1, 3, *size)))]
    except Exception:  # as above
        return []
