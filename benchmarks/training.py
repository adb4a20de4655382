"""Our training step against torchvision's: R50-FPN, the same weights, images, boxes and numbers of samples.

python benchmarks/training.py DATA [--images DIR] [--batch 2] [--crop 512] [--steps 5] [--device auto]
    [--compile] [--profile] [--json FILE]

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
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from fpnkit.data.augment import AugmentConfig
from fpnkit.data.loader import make_training_loader
from fpnkit.data.preprocess import Preprocess
from fpnkit.data.read import read_data
from fpnkit.detectors import FasterRCNN
from fpnkit.device import choose_device, machine, mixed_precision
from fpnkit.files import write_json
from fpnkit.structures import ImageBatch, Targets
from fpnkit.training.optimize import Optimizer, OptimizerConfig
from fpnkit.zoo import from_state, preset

MODEL = "torchvision_r50_fpn"
PRECISIONS = ("float32", "bf16")

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
    parser.add_argument("--compile", action="store_true", help="ours also with its parts by torch.compile")
    parser.add_argument("--profile", action="store_true", help="print what the steps spend their time on")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    batches = some_batches(arguments, device)
    torch.manual_seed(0)
    state = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91).state_dict()
    steps = {"ours, bf16": ours(state, device, compiled=False)}
    if arguments.compile:
        steps["ours, bf16, compiled"] = ours(state, device, compiled=True)
    steps |= {f"torchvision, {precision}": torchvisions(state, device, precision) for precision in PRECISIONS}
    floating = FlopCounterMode(display=False)
    with floating:
        steps["ours, bf16"](*batches[0])
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number, batch in enumerate(batches):
        for name, step in steps.items():
            began = time.perf_counter()
            loss = step(*batch)
            synchronise(device)
            if number >= 2:
                seconds[name].append(time.perf_counter() - began)
            print(f"{name}: loss {loss:.2f}, {time.perf_counter() - began:.2f} s", flush=True)
    report(seconds, floating.get_total_flops(), arguments, device)
    if arguments.profile:
        for name, step in steps.items():
            print(name)
            profile(step, batches[0])


def some_batches(arguments: argparse.Namespace, device: torch.device) -> list[tuple[ImageBatch, Targets]]:
    """As `fpnkit train` makes them."""
    data = read_data(arguments.data, images_dir=arguments.images)
    preprocess = Preprocess(preset(MODEL).preprocess)
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


def ours(state: dict[str, torch.Tensor], device: torch.device, *, compiled: bool) -> Step:
    """The step of `fpnkit train`."""
    _, detector = from_state(state, "torchvision", norm_eps=1e-5)
    config = OptimizerConfig(optimizer="sgd", lr=1e-3, precision="bf16")
    optimizer, done = Optimizer(detector.train(), config, steps=1000, device=device), 0
    if compiled:
        compile_parts(detector)

    def step(batch: ImageBatch, targets: Targets) -> float:
        nonlocal done
        done += 1
        for each in (targets.boxes_xyxy, targets.labels, targets.valid, targets.crowd):
            torch._dynamo.maybe_mark_dynamic(each, 1)  # the most objects of an image differ from batch to batch
        return optimizer.step(done, [lambda: detector.losses(batch, targets)])["total"]

    return step


def compile_parts(detector: FasterRCNN) -> None:
    """In five pieces: as one, the compiler of PyTorch 2.11 fails."""
    pieces = {
        detector: ("features",),
        detector.rpn: ("propose", "losses"),
        detector.roi: ("sample_rois", "losses_of_rois"),
    }
    for part, methods in pieces.items():
        for name in methods:
            setattr(part, name, torch.compile(getattr(part, name), fullgraph=True))


def torchvisions(state: dict[str, torch.Tensor], device: torch.device, precision: str) -> Step:
    """The step of torchvision's reference script, without its resizing: images are prepared already."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
    )
    model = TorchvisionFasterRCNN(backbone, num_classes=91)
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


def profile(step: Step, batch: tuple[ImageBatch, Targets]) -> None:
    """Print the kernels and operators that cost most in a step."""
    with torch.profiler.profile() as profiler:
        step(*batch)
    on_gpu = torch.cuda.is_available()
    order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    print(profiler.key_averages().table(sort_by=order, row_limit=18, max_name_column_width=60))


def synchronise(device: torch.device) -> None:
    """Wait for what was asked of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report(seconds: dict[str, list[float]], flops: int, arguments: argparse.Namespace, device: torch.device) -> None:
    """Print medians as images a second, and write them."""
    rates = {name: arguments.batch / statistics.median(each) for name, each in seconds.items()}
    for name, rate in rates.items():
        operations = flops / 1e12 / arguments.batch * rate
        print(f"{name}: {rate:.2f} images a second, {operations:.2f} TFLOP/s of convolutions and matrix products")
    if arguments.json:
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
        content: dict[str, Any] = {"images_a_second": rates, "seconds": seconds, "flops": flops, "device": gpu}
        write_json(arguments.json, {**content, "batch": arguments.batch, "crop": arguments.crop, **machine()})


if __name__ == "__main__":
    main()
