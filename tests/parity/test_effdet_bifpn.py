"""Our BiFPN is the effdet package's: same weights, same outputs, same gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fpnkit.pyramids import BiFPN
from fpnkit.structures import LevelSpec

effdet = pytest.importorskip("effdet")

from effdet.config import get_efficientdet_config  # noqa: E402
from effdet.efficientdet import BiFpn  # noqa: E402

CASES = {
    "D0: P3..P7 of three maps, three rounds": ((40, 112, 320), 3, 2, 3),
    "P2..P6 of four maps, one round": ((24, 40, 112, 320), 2, 1, 1),
    "a map that has d channels already": ((64, 112, 320), 3, 2, 2),
    "no extra level": ((16, 24), 4, 0, 2),
}
WIDTH = 64
SIDE = 256


def both(channels: tuple[int, ...], lowest: int, extra: int, repeats: int) -> tuple[BiFPN, nn.Module]:
    """The two networks, ours with their weights; norms have random statistics."""
    levels = [LevelSpec(f"c{lowest + i}", 2 ** (lowest + i), each) for i, each in enumerate(channels)]
    ours = BiFPN(levels, WIDTH, repeats=repeats, extra_levels=extra)
    config = get_efficientdet_config("efficientdet_d0")
    config.update(
        image_size=(SIDE, SIDE),
        min_level=lowest,
        max_level=lowest + len(channels) + extra - 1,
        num_levels=len(channels) + extra,
        fpn_channels=WIDTH,
        fpn_cell_repeats=repeats,
    )
    theirs = BiFpn(config, [{"num_chs": level.channels, "reduction": level.stride} for level in levels])
    with torch.no_grad():
        for name, tensor in theirs.state_dict().items():
            if tensor.ndim == 1 and tensor.is_floating_point():  # norms, their statistics, the weights of edges
                tensor.copy_(torch.randn_like(tensor) if name.endswith(("bias", "mean")) else tensor.uniform_(0.5, 1.5))
        for our_layer, their_layer in layer_pairs(ours, theirs):
            our_layer.load_state_dict(their_layer.state_dict())
        for node, other in zip(our_nodes(ours), their_nodes(theirs), strict=True):
            node.weights.copy_(other.combine.edge_weights)
    return ours, theirs


def our_nodes(ours: BiFPN) -> list[nn.Module]:
    return [node for one in ours.rounds for node in [*reversed(one.down), *one.up]]


def their_nodes(theirs: nn.Module) -> list[nn.Module]:
    return [node for cell in theirs.cell for node in cell.fnode]


def layer_pairs(ours: BiFPN, theirs: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Each convolution and norm of ours with its counterpart."""
    pairs = []
    if theirs.resample and hasattr(next(iter(theirs.resample.values())), "conv"):
        pairs += projection_pairs(ours.extra, next(iter(theirs.resample.values())))
    for node, other in zip(our_nodes(ours), their_nodes(theirs), strict=True):
        for layer, resample in zip(node.project, other.combine.resample.values(), strict=True):
            assert isinstance(layer, nn.Identity) == (not hasattr(resample, "conv"))
            pairs += projection_pairs(layer, resample) if hasattr(resample, "conv") else []
        conv = other.after_combine.conv
        pairs += [(node.depthwise, conv.conv_dw), (node.pointwise, conv.conv_pw), (node.norm, conv.bn)]
    return pairs


def projection_pairs(layer: nn.Module, resample: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    return [(layer[0], resample.conv.conv), (layer[1], resample.conv.bn)]


def maps_of(channels: tuple[int, ...], lowest: int, side: int = SIDE) -> list[Tensor]:
    return [torch.randn(2, each, side >> (lowest + i), side >> (lowest + i)) for i, each in enumerate(channels)]


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_equal_effdet(case: str, training: bool) -> None:
    torch.manual_seed(0)
    channels, lowest, extra, repeats = CASES[case]
    ours, theirs = both(channels, lowest, extra, repeats)
    ours.double().train(training)
    theirs.double().train(training)
    maps = [each.double() for each in maps_of(channels, lowest)]  # in single precision near-ties of pooling differ
    mine, other = ([each.clone().requires_grad_() for each in maps] for _ in range(2))
    outputs = list(ours({level.name: each for level, each in zip(ours.in_levels, mine, strict=True)}).values())
    wanted = theirs(list(other))
    assert len(outputs) == len(wanted) == len(channels) + extra
    for each, reference in zip(outputs, wanted, strict=True):
        torch.testing.assert_close(each, reference, atol=1e-6, rtol=1e-6)
    sum(each.square().mean() for each in outputs).backward()
    sum(each.square().mean() for each in wanted).backward()
    for each, reference in zip(mine, other, strict=True):
        scale = float(reference.grad.abs().max())
        torch.testing.assert_close(each.grad / scale, reference.grad / scale, atol=1e-6, rtol=1e-6)


def test_weights_below_zero_count_as_zero() -> None:
    channels, lowest, extra, repeats = CASES["no extra level"]
    ours, theirs = both(channels, lowest, extra, repeats)
    with torch.no_grad():
        for node, other in zip(our_nodes(ours), their_nodes(theirs), strict=True):
            other.combine.edge_weights[0] = -3.0
            node.weights[0] = -3.0
    maps = maps_of(channels, lowest)
    outputs = ours.eval()({level.name: each for level, each in zip(ours.in_levels, maps, strict=True)})
    for each, reference in zip(outputs.values(), theirs.eval()(list(maps)), strict=True):
        torch.testing.assert_close(each, reference, atol=1e-5, rtol=1e-4)
