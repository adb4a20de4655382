"""Our training step against torchvision's: R50-FPN, the same weights, images, boxes and numbers of samples.

python benchmarks/training.py DATA [--images DIR] [--batch 2] [--crop 512] [--steps 5] [--device auto]
    [--compile] [--json FILE]

Steps alternate in one run: ours in bf16 with channels last (`fpnkit train`'s own), torchvision's as
its reference script runs them, in float32 and in bf16. A step is losses, backward and SGD, on batches that lie ready.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from fpnkit.data.augment import AugmentConfig
from fpnkit.data.loader import make_training_loader
from fpnkit.data.preprocess import Preprocess
from fpnkit.data.read import read_data
from fpnkit.engine.bench import machine
from fpnkit.engine.checkpoint import write_json
from fpnkit.engine.device import choose_device, mixed_precision
from fpnkit.engine.optimize import Optimizer, OptimizerConfig
from fpnkit.structures import ImageBatch, Targets
from fpnkit.zoo import default_preprocess, from_state

MODEL = "torchvision_r50_fpn"

Step = Callable[[ImageBatch, Targets], float]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--images", type=Path, metavar="DIR")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--steps", type=int, default=5, help="of each, behind two that warm up")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true", help="ours, by torch.compile")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    batches = some_batches(arguments, device)
    torch.manual_seed(0)
    state = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91).state_dict()
    steps = {
        "ours, bf16": ours(state, device, arguments.compile),
        "torchvision, float32": torchvisions(state, device, "float32"),
        "torchvision, bf16": torchvisions(state, device, "bf16"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number, batch in enumerate(batches):
        for name, step in steps.items():
            began = time.perf_counter()
            loss = step(*batch)
            synchronise(device)
            if number >= 2:
                seconds[name].append(time.perf_counter() - began)
            print(f"{name}: loss {loss:.2f}, {time.perf_counter() - began:.2f} s", flush=True)
    report(seconds, arguments, device)


def some_batches(arguments: argparse.Namespace, device: torch.device) -> list[tuple[ImageBatch, Targets]]:
    """As `fpnkit train` makes them."""
    data = read_data(arguments.data, images_dir=arguments.images)
    preprocess = Preprocess(default_preprocess(MODEL))
    loader, _ = make_training_loader(
        data,
        preprocess,
        AugmentConfig(crop=arguments.crop),
        batch_size=arguments.batch,
        workers=0,
        seed=0,
    )
    return [
        (preprocess.normalise(images.to(device)), targets.to(device))
        for images, targets, _ in islice(loader, 2 + arguments.steps)
    ]


def ours(state: dict[str, torch.Tensor], device: torch.device, compiled: bool) -> Step:
    """The step of `fpnkit train`."""
    _, detector = from_state(state, "torchvision", norm_eps=1e-5)
    config = OptimizerConfig(optimizer="sgd", lr=1e-3, precision="bf16")
    optimizer, losses = Optimizer(detector.train(), config, steps=1000, device=device), detector.losses
    if compiled:
        losses = torch.compile(losses, dynamic=True)
    done = 0

    def step(batch: ImageBatch, targets: Targets) -> float:
        nonlocal done
        done += 1
        return optimizer.step(done, [lambda: losses(batch, targets)])["total"]

    return step


def torchvisions(state: dict[str, torch.Tensor], device: torch.device, precision: str) -> Step:
    """The step of torchvision's reference script, without its resizing: images are prepared already."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
    )
    model = FasterRCNN(backbone, num_classes=91)
    model.load_state_dict(state)
    model.transform.normalize = lambda image: image
    model.transform.resize = lambda image, target: (image, target)
    model.to(device).train()
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=1e-3, momentum=0.9)

    def step(batch: ImageBatch, targets: Targets) -> float:
        wanted = [
            {"boxes": boxes[valid], "labels": labels[valid] + 1}
            for boxes, labels, valid in zip(targets.boxes_xyxy, targets.labels, targets.valid, strict=True)
        ]
        with mixed_precision(device, precision):
            loss = sum(model(list(batch.images), wanted).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def synchronise(device: torch.device) -> None:
    """Wait for what was asked of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report(seconds: dict[str, list[float]], arguments: argparse.Namespace, device: torch.device) -> None:
    """Print medians as images a second and ratios, and write them."""
    rates = {name: arguments.batch / statistics.median(each) for name, each in seconds.items()}
    mine = rates["ours, bf16"]
    for name, rate in rates.items():
        print(f"{name}: {rate:.2f} images a second, ours {mine / rate:.2f} times that")
    if arguments.json:
        content: dict[str, Any] = {"images_a_second": rates, "seconds": seconds, "machine": machine()}
        write_json(arguments.json, {**content, "batch": arguments.batch, "crop": arguments.crop, "device": str(device)})


if __name__ == "__main__":
    main()
