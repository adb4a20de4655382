"""What each part of the shipped person detector is worth, on a short training of each variant.

python tools/ablation.py TRAIN.json VAL.json --weights LITE2 [--small LITE0] [--rows NAME ...] --out DIR

Every row changes one thing of the first, trains on people from ImageNet weights, alike in all else, and is evaluated
once. Each leaves DIR/NAME.json; what is there is not trained again. Prints a Markdown table of all that is there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import generalized_box_iou_loss

from fpnkit import backbones
from fpnkit.data.annotated import AnnotatedImages, selected
from fpnkit.data.augment import AugmentConfig
from fpnkit.data.loader import make_training_loader
from fpnkit.data.preprocess import Preprocess
from fpnkit.data.read import read_data
from fpnkit.detectors import FasterRCNN
from fpnkit.device import choose_device
from fpnkit.evaluation.evaluate import evaluate
from fpnkit.files import write_json
from fpnkit.heads import CascadeHead, FastRCNNConfig, FastRCNNHead, RPNConfig, RPNHead
from fpnkit.inference.predictor import find_model
from fpnkit.ops import codec
from fpnkit.pyramids import FPN, PAN, BiFPN, Pyramid
from fpnkit.training.ema import Average
from fpnkit.training.optimize import Optimizer, OptimizerConfig
from fpnkit.weights.backbone import load_backbone_weights
from fpnkit.weights.fine_tune import take_over
from fpnkit.zoo import default_preprocess

MODEL = "cascade_rcnn_lite2_fpn"
COLUMNS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "proposals/AR_100")
AUGMENT = AugmentConfig(crop=512, scale=(0.5, 1.8), paste=0.3)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One training; the defaults are the recipe of the model that ships."""

    backbone: str = "tf_efficientnet_lite2"
    pyramid: Callable[..., Pyramid] = FPN
    from_p3: bool = False
    stages: int = 2
    anchor_scale: float = 6
    hidden: int = 512
    sampling_ratio: int = 2
    giou: bool = False
    augment: AugmentConfig = AUGMENT
    ema: float = 0.99
    start_from: str | None = None


SHIPPED = Variant()
ROWS = {
    "as shipped": SHIPPED,
    "EfficientNet-Lite0": replace(SHIPPED, backbone="tf_efficientnet_lite0"),
    "PAN": replace(SHIPPED, pyramid=PAN),
    "BiFPN": replace(SHIPPED, pyramid=BiFPN),
    "P3 to P7": replace(SHIPPED, from_p3=True, anchor_scale=3),
    "one RoI head": replace(SHIPPED, stages=1),
    "anchors from 32 pixels": replace(SHIPPED, anchor_scale=8),
    "hidden layers of 1024": replace(SHIPPED, hidden=1024),
    "one RoIAlign sample a cell": replace(SHIPPED, sampling_ratio=1),
    "GIoU loss in the RoI heads": replace(SHIPPED, giou=True),
    "no scale jitter": replace(SHIPPED, augment=replace(AUGMENT, scale=(1.0, 1.0))),
    "scale jitter 0.1 to 2": replace(SHIPPED, augment=replace(AUGMENT, scale=(0.1, 2.0))),
    "no copy-paste": replace(SHIPPED, augment=replace(AUGMENT, paste=0.0)),
    "no average of weights": replace(SHIPPED, ema=0.0),
    "from coco80": replace(SHIPPED, start_from="coco80"),
}


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("val")
    parser.add_argument("--images", type=Path, metavar="DIR", help="of TRAIN")
    parser.add_argument("--val-images", type=Path, metavar="DIR")
    parser.add_argument("--weights", type=Path, required=True, metavar="LITE2", help="ImageNet weights")
    parser.add_argument("--small", type=Path, metavar="LITE0", help="those of the row EfficientNet-Lite0")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME", help="default: all")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.rows:
        path = arguments.out / f"{name}.json"
        if not path.exists():
            write_json(path, measured(name, arguments))
    table(arguments.out)


def measured(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Train a row and evaluate it."""
    variant, device = ROWS[name], choose_device("auto")
    data, val = (
        selected(read_data(path, images_dir=images), ("person",), some=True)
        for path, images in ((arguments.train, arguments.images), (arguments.val, arguments.val_images))
    )
    torch.manual_seed(0)
    detector = built(variant)
    if variant.start_from:
        take_over(detector, data.classes, find_model(variant.start_from))
    else:
        weights = arguments.small if variant.backbone == "tf_efficientnet_lite0" else arguments.weights
        load_backbone_weights(detector.backbone, weights)
    preprocess, began = Preprocess(default_preprocess(MODEL)), time.perf_counter()
    network = trained(detector, variant, data, preprocess, device, arguments)
    seconds = time.perf_counter() - began
    metrics = evaluate(network, val, preprocess, device=device, precision="bf16", batch_size=8).metrics
    print(f"{name}: AP {100 * metrics['AP']:.1f}, {seconds:.0f} s", flush=True)
    return {**metrics, "seconds": seconds, "epochs": arguments.epochs}


def built(variant: Variant) -> FasterRCNN:
    """The zoo's model with what the variant changes."""
    strides, frozen, extra = ((8, 16, 32), 1, 2) if variant.from_p3 else ((4, 8, 16, 32), 2, 1)
    backbone = backbones.timm(variant.backbone, strides=strides, frozen_stages=frozen)
    pyramid = variant.pyramid(backbone.levels, channels=96, extra_levels=extra)
    rpn_numbers = RPNConfig(
        anchor_scale=variant.anchor_scale, per_level=500, proposals=300, train_per_level=500, train_proposals=500
    )
    roi_numbers = FastRCNNConfig(
        hidden=variant.hidden, samples=128, min_score=0.01, sampling_ratio=variant.sampling_ratio
    )
    roi: CascadeHead | FastRCNNHead
    if variant.stages == 1:
        roi = FastRCNNHead(pyramid.levels, 1, roi_levels=len(strides), config=roi_numbers)
    else:
        roi = CascadeHead(pyramid.levels, 1, stages=variant.stages, roi_levels=len(strides), config=roi_numbers)
    if variant.giou:
        for head in [each for each in roi.modules() if isinstance(each, FastRCNNHead)]:
            head.box_loss = partial(giou_loss, weights=head.config.delta_weights)  # type: ignore[method-assign]
    return FasterRCNN(backbone=backbone, pyramid=pyramid, rpn=RPNHead(pyramid.levels, rpn_numbers), roi=roi)


def giou_loss(predicted: Tensor, wanted: Tensor, *, weights: codec.Weights) -> Tensor:
    """GIoU (arXiv:1902.09630) of what deltas make of a unit box: the same as of any other. Ten times, as others do."""
    unit = predicted.new_tensor([0.0, 0.0, 1.0, 1.0]).expand_as(predicted)
    made, right = (codec.decode_deltas(each, unit, weights=weights) for each in (predicted, wanted))
    return 10 * generalized_box_iou_loss(made, right)


def trained(
    detector: FasterRCNN,
    variant: Variant,
    data: AnnotatedImages,
    preprocess: Preprocess,
    device: torch.device,
    arguments: argparse.Namespace,
) -> FasterRCNN:
    """The network at the end, or its average."""
    loader, sampler = make_training_loader(
        data, preprocess, variant.augment, seed=0, batch_size=16, workers=arguments.workers
    )
    steps = arguments.epochs * sampler.per_epoch
    sampler.numbers = range(steps)
    config = OptimizerConfig(batch_size=16, warmup_steps=100)
    optimizer = Optimizer(detector.train(), config, steps=steps, device=device)
    average = Average(detector, variant.ema) if variant.ema else None
    with contextlib.closing(iter(loader)) as batches:
        for done, (batch, targets, _) in enumerate(batches):
            images, wanted = preprocess.normalise(batch.to(device)), targets.to(device)
            losses = optimizer.step(done, [lambda: detector.losses(images, wanted)])  # noqa: B023
            if average:
                average.follow(detector, done + 1)
            if done % 50 == 0:
                print(f"step {done} of {steps}: loss {losses['total']:.2f}", flush=True)
    return average.network if average else detector  # type: ignore[return-value]


def table(out: Path) -> None:
    """Print what is there."""
    print(f"| variant | {' | '.join(COLUMNS)} | million parameters | GFLOP an image |")
    print("|---" * (len(COLUMNS) + 3) + "|")
    for name, variant in ROWS.items():
        path = out / f"{name}.json"
        if path.exists():
            row, (parameters, operations) = json.loads(path.read_text()), cost(variant)
            figures = " | ".join(f"{100 * row[column]:.1f}" for column in COLUMNS)
            print(f"| {name} | {figures} | {parameters / 1e6:.1f} | {operations / 1e9:.1f} |")


@torch.no_grad()
def cost(variant: Variant) -> tuple[int, int]:
    """Parameters, and floating-point operations of an image of 640 x 856 pixels."""
    detector, counter = built(variant).eval(), FlopCounterMode(display=False)
    with counter:
        detector(torch.zeros(1, 3, 640, 856), torch.tensor([[640.0, 856.0]]))
    return sum(each.numel() for each in detector.parameters()), counter.get_total_flops()


if __name__ == "__main__":
    main()
