"""What each part of the shipped person detector is worth, on a short training of each variant.

python tools/ablation.py TRAIN.json VAL.json --weights LITE2 [--small LITE0] [--rows NAME ...] --out DIR

Every row changes one thing of the first, trains on people from ImageNet weights, alike in all else, and is evaluated
once. Each leaves DIR/NAME.json, with hyphens for spaces; what is there is not trained again. Prints a Markdown table
of all that is there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from fpnkit.data.annotated import AnnotatedImages, selected
from fpnkit.data.augment import AugmentConfig
from fpnkit.data.loader import make_training_loader
from fpnkit.data.preprocess import Preprocess
from fpnkit.data.read import read_data
from fpnkit.detectors import Detector
from fpnkit.device import choose_device
from fpnkit.evaluation.evaluate import evaluate
from fpnkit.files import write_json
from fpnkit.heads import FastRCNNHead
from fpnkit.inference.torch_engine import TorchEngine
from fpnkit.ops import codec
from fpnkit.settings import with_settings
from fpnkit.training.ema import EMA
from fpnkit.training.optimize import Optimizer, OptimizerConfig
from fpnkit.weights import InitialWeights
from fpnkit.zoo import ModelSpec, build, preset
from fpnkit.zoo.costs import model_costs

SHIPPED = preset("cascade_rcnn_lite2_fpn")
COLUMNS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "proposals/AR_100")
AUGMENT = AugmentConfig(crop=512, scale=(0.5, 1.8), paste=0.3)
SIZE_HW = (640, 856)
"""Of the image whose operations are counted."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One training; the defaults are the recipe of the model that ships."""

    spec: ModelSpec = SHIPPED
    giou: bool = False
    augment: AugmentConfig = AUGMENT
    ema: float = 0.99
    start_from: str | None = None


def changed(*words: str) -> Variant:
    """The model that ships with other settings."""
    return Variant(spec=with_settings(SHIPPED, words))


ROWS = {
    "as shipped": Variant(),
    "EfficientNet-Lite0": changed("backbone.name=tf_efficientnet_lite0"),
    "PAN": changed("pyramid.name=pan"),
    "BiFPN": changed("pyramid.name=bifpn"),
    "P3 to P7": changed(
        "backbone.strides=8,16,32", "backbone.frozen_stages=1", "pyramid.extra_levels=2", "rpn.anchor_scale=3"
    ),
    "one RoI head": changed("cascade=none"),
    "anchors from 32 pixels": changed("rpn.anchor_scale=8"),
    "hidden layers of 1024": changed("roi.hidden=1024"),
    "one RoIAlign sample a cell": changed("roi.sampling_ratio=1"),
    "GIoU loss in the RoI heads": Variant(giou=True),
    "no scale jitter": Variant(augment=replace(AUGMENT, scale=(1.0, 1.0))),
    "scale jitter 0.1 to 2": Variant(augment=replace(AUGMENT, scale=(0.1, 2.0))),
    "no copy-paste": Variant(augment=replace(AUGMENT, paste=0.0)),
    "no average of weights": Variant(ema=0.0),
    "from coco80": Variant(start_from="coco80"),
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
        path = result_path(arguments.out, name)
        if not path.exists():
            write_json(path, measured(name, arguments))
    table(arguments.out)


def result_path(folder: Path, row: str) -> Path:
    """The file of a row's figures."""
    return folder / f"{row.replace(' ', '-')}.json"


def measured(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Train a row and evaluate it."""
    variant, device = ROWS[name], choose_device("auto")
    data, val = (
        selected(read_data(path, images_dir=images), ("person",), some=True)
        for path, images in ((arguments.train, arguments.images), (arguments.val, arguments.val_images))
    )
    torch.manual_seed(0)
    detector = built(variant)
    of_backbone = arguments.small if variant.spec.backbone.name == "tf_efficientnet_lite0" else arguments.weights
    weights = InitialWeights.parse(variant.start_from or of_backbone)
    weights.apply(detector, data.classes, spec=variant.spec)
    began = time.perf_counter()
    network = trained(detector, variant, data, device, arguments)
    seconds = time.perf_counter() - began
    engine = TorchEngine(network, device, "bf16")
    metrics = evaluate(engine, val, variant.spec.preprocess, batch_size=8).metrics
    print(f"{name}: AP {100 * metrics['AP']:.1f}, {seconds:.0f} s", flush=True)
    return {**metrics, "seconds": seconds, "epochs": arguments.epochs}


def built(variant: Variant) -> Detector:
    """The detector of a row, of one class."""
    detector = build(variant.spec, 1)
    if variant.giou:
        for head in [each for each in detector.modules() if isinstance(each, FastRCNNHead)]:
            head.box_loss = partial(giou_loss, weights=head.config.delta_weights)  # type: ignore[method-assign]
    return detector


def giou_loss(predicted: Tensor, wanted: Tensor, *, weights: codec.Weights) -> Tensor:
    """GIoU (arXiv:1902.09630) of what deltas make of a unit box: the same as of any other. Ten times, as others do."""
    unit = predicted.new_tensor([0.0, 0.0, 1.0, 1.0]).expand_as(predicted)
    made, right = (codec.decode_deltas(each, unit, weights=weights) for each in (predicted, wanted))
    return 10 * generalized_box_iou_loss(made, right)


def trained(
    detector: Detector, variant: Variant, data: AnnotatedImages, device: torch.device, arguments: argparse.Namespace
) -> Detector:
    """The network at the end, or the moving average of its weights."""
    preprocess = Preprocess(variant.spec.preprocess)
    loader, sampler = make_training_loader(
        data, preprocess, variant.augment, seed=0, batch_size=16, workers=arguments.workers
    )
    steps = arguments.epochs * sampler.per_epoch
    sampler.numbers = range(steps)
    config = OptimizerConfig(batch_size=16, warmup_steps=100)
    optimizer = Optimizer(detector.train(), config, steps=steps, device=device)
    ema = EMA(detector, variant.ema) if variant.ema else None
    with contextlib.closing(iter(loader)) as batches:
        for done, (batch, targets, _) in enumerate(batches):
            images, wanted = preprocess.normalise(batch.to(device)), targets.to(device)
            losses = optimizer.step(done, [lambda: detector.losses(images, wanted)])  # noqa: B023
            if ema:
                ema.update(detector, done + 1)
            if done % 50 == 0:
                print(f"step {done} of {steps}: loss {losses['total']:.2f}", flush=True)
    return ema.network if ema else detector  # type: ignore[return-value]


def table(out: Path) -> None:
    """Print what is there."""
    print(f"| variant | {' | '.join(COLUMNS)} | million parameters | GFLOP an image |")
    print("|---" * (len(COLUMNS) + 3) + "|")
    for name, variant in ROWS.items():
        path = result_path(out, name)
        if path.exists():
            row, costs = json.loads(path.read_text()), model_costs(variant.spec, 1, size_hw=SIZE_HW)
            figures = " | ".join(f"{100 * row[column]:.1f}" for column in COLUMNS)
            print(f"| {name} | {figures} | {costs.parameters / 1e6:.1f} | {2 * costs.gmacs:.1f} |")


if __name__ == "__main__":
    main()
