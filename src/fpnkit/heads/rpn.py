"""Region Proposal Network on a pyramid, arXiv:1612.03144, section 4.1.

Shapes: N images, A anchors in all, M padded objects, K proposals. Anchors come in groups of one size on one level:
G groups, A_g anchors in one. A level of an FPN has one group; a map that serves several strides has one for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..ops import boxes, codec, losses, matching
from ..ops.anchors import AnchorGrid, cell_anchors
from ..ops.nms import nms_keep, top_k
from ..structures import Features, LevelResponse, LevelSpec, Proposals, Targets

DELTA_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class RPNConfig:
    """Numbers of the RPN; the defaults are the paper's.

    Attributes:
        anchor_scale: anchor side in strides: 8 gives 32, 64, 128, 256, 512 pixels on P2..P6.
        ratios: height over width.
        positive_iou, negative_iou: anchors at or above are objects, below are background.
        samples: anchors an image in the loss.
        positive_fraction: largest share of positives among them.
        per_level, proposals: best anchors kept of each size before NMS, and proposals an image after it.
        train_per_level, train_proposals: the same while training.
        nms_iou: NMS threshold, anchor size by anchor size, which on an FPN is level by level.
        shared: one set of weights for all levels; the paper found unshared ones no better.
        min_side: smaller proposals, in pixels, are dropped.
        smooth_l1_beta: where the box loss turns linear.
        anchor_offset: where in a cell anchors are centred: 0.5 its middle; torchvision uses 0.
        round_anchors: round anchor corners to whole pixels, as torchvision does.
        strides_from_image: take padded image size // map size for the stride, as torchvision does; wrong by up
            to 5 % on P6. For converted weights only: the levels' declared strides are right.
    """

    anchor_scale: float = 8.0
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    samples: int = 256
    positive_fraction: float = 0.5
    per_level: int = 1000
    proposals: int = 1000
    train_per_level: int = 2000
    train_proposals: int = 2000
    nms_iou: float = 0.7
    shared: bool = True
    min_side: float = 1e-3
    smooth_l1_beta: float = 1 / 9
    anchor_offset: float = 0.5
    round_anchors: bool = False
    strides_from_image: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.negative_iou <= self.positive_iou <= 1:
            raise ConfigError(
                "RPN expects 0 <= negative_iou <= positive_iou <= 1, "
                f"got negative_iou {self.negative_iou} and positive_iou {self.positive_iou}"
            )
        if min(self.samples, self.per_level, self.proposals, self.train_per_level, self.train_proposals) < 1:
            raise ConfigError("RPN expects samples, per_level and proposals of at least 1")
        if not 0 <= self.positive_fraction <= 1 or not 0 <= self.nms_iou <= 1:
            raise ConfigError(
                "RPN expects positive_fraction and nms_iou in 0..1, "
                f"got positive_fraction {self.positive_fraction} and nms_iou {self.nms_iou}"
            )
        if self.anchor_scale <= 0 or min(self.ratios, default=0) <= 0:
            raise ConfigError(
                "RPN expects a positive anchor_scale and positive ratios, "
                f"got anchor_scale {self.anchor_scale} and ratios {self.ratios}"
            )


class RPNHead(nn.Module):
    """Objectness and box deltas at every cell of every level, and the proposals made of them.

    Args:
        levels: the pyramid's specs; one set of weights serves them all, unless `config.shared` is off.
        config: numbers; see `RPNConfig`.
    Raises:
        ConfigError: no levels, or, when shared, levels of different widths or numbers of anchor sizes.
    """

    def __init__(self, levels: Sequence[LevelSpec], config: RPNConfig | None = None) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.config = config or RPNConfig()
        if not self.levels:
            raise ConfigError("RPN head expects at least one level, got no levels: pass pyramid.levels")
        if self.config.shared:
            shared_channels(self.levels, "RPN head")
            if len({len(level.serves) for level in self.levels}) != 1:
                found = ", ".join(f"{level.name} serves {level.serves}" for level in self.levels)
                raise ConfigError(
                    f"a shared RPN head expects as many anchor sizes on every level, got {found}: pass shared=False"
                )
        ratios = len(self.config.ratios)
        self.conv = self._layers(lambda level: nn.Conv2d(level.channels, level.channels, 3, padding=1))
        self.objectness = self._layers(lambda level: nn.Conv2d(level.channels, ratios * len(level.serves), 1))
        self.deltas = self._layers(lambda level: nn.Conv2d(level.channels, 4 * ratios * len(level.serves), 1))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    @property
    def anchor_sizes(self) -> dict[str, tuple[float, ...]]:
        """Sides in input pixels of the square anchors of each level."""
        scale = self.config.anchor_scale
        return {level.name: tuple(scale * stride for stride in level.serves) for level in self.levels}

    def forward(self, features: Features) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (N, A_g) and deltas (N, A_g, 4) of each group, in the order of the anchors, float32."""
        logits, deltas = [], []
        for level in self.levels:
            hidden = torch.relu(_of(self.conv, level)(features[level.name]))
            for each in _of(self.objectness, level)(hidden).chunk(len(level.serves), dim=1):
                logits.append(each.permute(0, 2, 3, 1).flatten(1).float())
            for each in _of(self.deltas, level)(hidden).chunk(len(level.serves), dim=1):
                deltas.append(each.permute(0, 2, 3, 1).reshape(hidden.shape[0], -1, 4).float())
        return logits, deltas

    def anchor_grids(self, features: Features, padded_hw: tuple[int, int]) -> list[AnchorGrid]:
        """The anchors of each group, made when they are asked for; `padded_hw` is the batch's height and width."""
        made = []
        for level in self.levels:
            feature = features[level.name]
            height, width = feature.shape[-2:]
            stride = (float(level.stride), float(level.stride))
            if self.config.strides_from_image:
                stride = (padded_hw[0] // height, padded_hw[1] // width)
            for size in self.anchor_sizes[level.name]:
                cell = cell_anchors(size, self.config.ratios)
                if self.config.round_anchors:
                    cell = cell.round()
                made.append(AnchorGrid(cell.to(feature.device), height, width, stride, self.config.anchor_offset))
        return made

    def anchors(self, features: Features, padded_hw: tuple[int, int]) -> list[Tensor]:
        """(A_g, 4) anchors of each group in pixels; `padded_hw` is height and width of the padded batch."""
        return [grid.all() for grid in self.anchor_grids(features, padded_hw)]

    def _layers(self, make: Callable[[LevelSpec], nn.Conv2d]) -> nn.Module:
        """One layer for all levels, or one a level."""
        if self.config.shared:
            return make(self.levels[0])
        return nn.ModuleDict({level.name: make(level) for level in self.levels})

    def proposals(
        self, features: Features, padded_hw: tuple[int, int], sizes_hw: Tensor, *, count: int | None = None
    ) -> Proposals:
        """The proposals of a pyramid; see `propose`.

        Args:
            features: the pyramid.
            padded_hw: height and width of the padded batch.
            sizes_hw, count: as for `propose`.
        """
        logits, deltas = self(features)
        return self.propose(logits, deltas, self.anchor_grids(features, padded_hw), sizes_hw, count=count)

    def propose(
        self,
        logits: list[Tensor],
        deltas: list[Tensor],
        level_anchors: Sequence[Tensor | AnchorGrid],
        sizes_hw: Tensor,
        *,
        count: int | None = None,
    ) -> Proposals:
        """The best boxes of each group, suppressed group by group, the best of all first.

        Args:
            logits, deltas: of `forward`.
            level_anchors: of `anchors`, or of `anchor_grids` where only the best are needed.
            sizes_hw: (N, 2) height and width of the images inside their padding.
            count: proposals an image; by default `proposals`, or `train_proposals` in training.
        Returns:
            `Proposals` of fixed width `count`.
        """
        per_level = self.config.train_per_level if self.training else self.config.per_level
        count = count or (self.config.train_proposals if self.training else self.config.proposals)
        level_boxes, level_scores = [], []
        for scores, level_deltas, each in zip(logits, deltas, level_anchors, strict=True):
            best, index, valid = top_k(scores.detach(), per_level)
            chosen = level_deltas.detach().gather(1, index[..., None].expand(-1, -1, 4))
            decoded = boxes.clip(codec.decode_deltas(chosen, each[index], weights=DELTA_WEIGHTS), sizes_hw)
            valid = valid & (boxes.min_side(decoded) >= self.config.min_side)
            level_boxes.append(decoded)
            level_scores.append(best.masked_fill(~valid, float("-inf")))
        boxes_xyxy, scores = torch.stack(level_boxes, dim=1), torch.stack(level_scores, dim=1)
        keep = nms_keep(boxes_xyxy.flatten(0, 1), scores.flatten(0, 1), self.config.nms_iou)
        survivors = scores.masked_fill(~keep.reshape(scores.shape), float("-inf")).flatten(1)
        best, index, valid = top_k(survivors, count)
        picked = boxes_xyxy.flatten(1, 2).gather(1, index[..., None].expand(-1, -1, 4))
        return Proposals(boxes_xyxy=picked, scores=best, valid=valid)

    def responses(self, features: Features, logits: list[Tensor]) -> tuple[LevelResponse, ...]:
        """The objectness of each level's best anchors, cell by cell.

        Args:
            features: the pyramid.
            logits: of `forward`.
        """
        groups, made = iter(logits), []
        for level in self.levels:
            sides, grid = self.anchor_sizes[level.name], features[level.name].shape[-2:]
            each = [next(groups).reshape(-1, *grid, len(self.config.ratios)).amax(dim=-1) for _ in sides]
            anchors = torch.cat([cell_anchors(side, self.config.ratios) for side in sides])
            best = torch.stack(each).amax(dim=0).sigmoid()
            offset = self.config.anchor_offset
            made.append(LevelResponse(level.name, level.number, level.stride, sides, anchors, offset, best))
        return tuple(made)

    def losses(
        self, logits: list[Tensor], deltas: list[Tensor], level_anchors: list[Tensor], targets: Targets
    ) -> dict[str, Tensor]:
        """`rpn_objectness` and `rpn_box`: means over the sampled anchors of each image.

        Source: arXiv:1612.03144, section 4.1; both terms are divided by the number of samples.
        """
        config = self.config
        all_anchors = torch.cat(level_anchors)
        matches = matching.match(
            all_anchors,
            targets.boxes_xyxy,
            targets.valid,
            targets.crowd,
            positive_iou=config.positive_iou,
            negative_iou=config.negative_iou,
            allow_low_quality_matches=True,
        )
        samples = matching.sample(
            matches, count=config.samples, positive_fraction=config.positive_fraction, seeds=targets.seeds
        )
        count = samples.valid.sum(dim=1)
        objectness = losses.objectness_loss(torch.cat(logits, dim=1).gather(1, samples.index), samples.positive)
        predicted = torch.cat(deltas, dim=1).gather(1, samples.index[..., None].expand(-1, -1, 4))
        wanted = wanted_deltas(
            all_anchors[samples.index], targets, matches.target.gather(1, samples.index), DELTA_WEIGHTS
        )
        box = losses.smooth_l1(predicted, wanted, beta=config.smooth_l1_beta)
        return {
            "rpn_objectness": losses.masked_mean(objectness, samples.valid, count),
            "rpn_box": losses.masked_mean(box, samples.positive, count),
        }


def _of(layers: nn.Module, level: LevelSpec) -> nn.Module:
    return layers[level.name] if isinstance(layers, nn.ModuleDict) else layers


def shared_channels(levels: Sequence[LevelSpec], reader: str) -> int:
    """The one width of all levels that a shared head needs."""
    widths = {level.channels for level in levels}
    if len(widths) != 1:
        found = ", ".join(f"{level.name} of {level.channels}" for level in levels) or "no levels"
        raise ConfigError(
            f"{reader} is shared by its levels and expects equal channels, got {found}: pass pyramid.levels"
        )
    return widths.pop()


def wanted_deltas(chosen_xyxy: Tensor, targets: Targets, target: Tensor, weights: codec.Weights) -> Tensor:
    """Deltas from chosen candidates to their objects.

    Args:
        chosen_xyxy: (N, S, 4).
        targets: objects.
        target: (N, S) int64, the object of each.
        weights: of the deltas.
    Returns:
        (N, S, 4); zeros where an image has no object at all.
    """
    if targets.boxes_xyxy.shape[1] == 0:
        return torch.zeros_like(chosen_xyxy)
    boxes_xyxy = targets.boxes_xyxy.masked_fill(~targets.valid[..., None], 0.0)
    own = boxes_xyxy.gather(1, target[..., None].expand(-1, -1, 4))
    return codec.encode_boxes(own, chosen_xyxy, weights=weights)
