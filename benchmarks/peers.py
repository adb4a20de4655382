"""fpnkit against torchvision on this machine: same weights, same image, same number of RoIs, interleaved in one run.

python benchmarks/peers.py --quick --json peers.json      the four ratios, in five minutes
python benchmarks/peers.py --json peers.json              every variant, more rounds

Faster R-CNN ResNet-50-FPN at 800 x 1088, and the default model beside torchvision's MobileNetV3-FPN at 480 x 640.
The weights of the former are random, spread so that there are 1,000 proposals and many detections: so times are right,
and that both find the same is checked in float32 before anything is timed; how accurate int8 is, is not measured here.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import detection

from fpnkit.data.images import read_image, to_tensor
from fpnkit.data.preprocess import PreprocessConfig
from fpnkit.data.samples import sample_images
from fpnkit.detectors import FasterRCNN
from fpnkit.engine.bench import machine
from fpnkit.engine.checkpoint import ModelCard, load_weights, write_json
from fpnkit.engine.graphs import describe
from fpnkit.engine.predict import find_model
from fpnkit.graph.runtimes import OnnxRuntime, OpenVinoRuntime, Runtime, require
from fpnkit.graph.write import write_graph
from fpnkit.ops.boxes import iou
from fpnkit.zoo import from_torchvision, torchvision_preprocess

LARGE, SMALL = (800, 1088), (480, 640)
CALIBRATION_IMAGES = 6

RATIOS = {
    "bf16_vs_tv_openvino": ("torchvision, OpenVINO bf16", "fpnkit, OpenVINO bf16"),
    "int8_vs_tv_openvino": ("torchvision, OpenVINO bf16", "fpnkit, OpenVINO int8"),
    "bf16_vs_tv_eager": ("torchvision eager, float32", "fpnkit, OpenVINO bf16"),
    "default_vs_tv_mobilenet": ("torchvision MobileNetV3-FPN eager, float32", "fpnkit default, OpenVINO bf16"),
}
"""Name -> the peer and us: how many times faster we are, by medians."""

Run = Callable[[], Any]


def main() -> None:
    """Build, check, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only what the ratios need")
    parser.add_argument("--rounds", type=int, help="default: 30, or 8 with --quick")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_grad_enabled(False)
    rounds = arguments.rounds or (8 if arguments.quick else 30)
    with tempfile.TemporaryDirectory() as folder:
        variants = large_variants(Path(folder), quick=arguments.quick) | small_variants(Path(folder))
        figures = interleaved(variants, rounds)
    found = {name: figures[peer]["median"] / figures[ours]["median"] for name, (peer, ours) in RATIOS.items()}
    print(as_markdown(figures, found, rounds))
    if arguments.json:
        write_json(arguments.json, {**found, "milliseconds": figures, "rounds": rounds, "machine": surroundings()})


def large_variants(folder: Path, *, quick: bool) -> dict[str, Run]:
    """ResNet-50-FPN with 1,000 RoIs in every runtime, checked to find the same."""
    image, (pixels, sizes) = photo(LARGE), network_input(LARGE)
    model = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    spread(model, image)
    detector, preprocess = from_torchvision(model), torchvision_preprocess(model)
    ours = written(folder / "float32", detector, preprocess, "float32", LARGE)
    int8 = written(folder / "int8", detector, preprocess, "int8", LARGE)
    require_equal(model([image / 255])[0], OpenVinoRuntime(ours)(pixels, sizes))
    peer = folder / "torchvision.onnx"
    with quiet():
        torch.onnx.export(model, ([image / 255],), peer, opset_version=17, dynamo=False, input_names=["image"])
    variants: dict[str, Run] = {
        "torchvision eager, float32": lambda: model([image / 255]),
        "torchvision, OpenVINO bf16": openvino_run(peer, (image / 255).numpy(), "bf16"),
        "fpnkit, OpenVINO bf16": run_of(OpenVinoRuntime(ours, precision="bf16"), pixels, sizes),
        "fpnkit, OpenVINO int8": run_of(OpenVinoRuntime(int8, precision="bf16"), pixels, sizes),
    }
    if quick:
        return variants
    detector.rpn.config = replace(detector.rpn.config, proposals=300)
    few = written(folder / "few", detector, preprocess, "float32", LARGE)
    few_int8 = written(folder / "few-int8", detector, preprocess, "int8", LARGE)
    return variants | {
        "torchvision, OpenVINO float32": openvino_run(peer, (image / 255).numpy(), "f32"),
        "torchvision, ONNX Runtime float32": onnx_run(peer, (image / 255).numpy()),
        "fpnkit, OpenVINO float32": run_of(OpenVinoRuntime(ours), pixels, sizes),
        "fpnkit, ONNX Runtime float32": run_of(OnnxRuntime(ours), pixels, sizes),
        "fpnkit, 300 RoIs, OpenVINO bf16": run_of(OpenVinoRuntime(few, precision="bf16"), pixels, sizes),
        "fpnkit, 300 RoIs, OpenVINO int8": run_of(OpenVinoRuntime(few_int8, precision="bf16"), pixels, sizes),
        "fpnkit, 300 RoIs, OpenVINO int8, 4 images in 2 streams": four_at_a_time(
            OpenVinoRuntime(few_int8, precision="bf16", streams=2), pixels, sizes
        ),
    }


def small_variants(folder: Path) -> dict[str, Run]:
    """The default model with its weights, and torchvision's small one with random ones, on the same image."""
    image, (pixels, sizes) = photo(SMALL), network_input(SMALL)
    peer = detection.fasterrcnn_mobilenet_v3_large_fpn(
        weights=None, weights_backbone=None, num_classes=2, min_size=SMALL[0], max_size=SMALL[1]
    ).eval()
    detector, card = load_weights(find_model("default"))
    ours = written(folder / "default", detector, card.preprocess, "float32", SMALL)
    return {
        "torchvision MobileNetV3-FPN eager, float32": lambda: peer([image / 255]),
        "fpnkit default, OpenVINO bf16": run_of(OpenVinoRuntime(ours, precision="bf16"), pixels, sizes),
    }


def interleaved(variants: dict[str, Run], rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each variant: all of them in turn, round after round, after one round of warming up."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            began = time.perf_counter()
            run()
            if number:
                times[name].append(1000 * (time.perf_counter() - began))
    return {
        name: {"min": min(each), "median": statistics.median(each), "max": max(each)} for name, each in times.items()
    }


def written(
    folder: Path, detector: FasterRCNN, preprocess: PreprocessConfig, precision: str, size: tuple[int, int]
) -> Path:
    """The detector's ONNX graph of any size, in int8 calibrated with the sample photographs."""
    folder.mkdir()
    card = ModelCard(model="benchmark", classes=tuple(map(str, range(detector.num_classes))), preprocess=preprocess)
    graph = {"format": "onnx", "precision": precision, "pixels": True, "resizes": False, "size": None}
    exported = describe(card, detector, **graph)
    samples = [network_input(size, number) for number in range(CALIBRATION_IMAGES)] if precision == "int8" else []
    with quiet():
        write_graph(folder, detector, exported, samples)
    return folder / exported.graph


def spread(model: Any, image: Tensor) -> None:
    """Give a random torchvision detector the statistics of a photograph, and predictions that spread."""
    for name, module in model.backbone.body.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            module.weight.fill_(0.2 if name.endswith("bn3") else 1.0)  # training keeps residual branches small
    model.eval().backbone.train()
    model.backbone(model.transform([image / 255])[0].tensors)
    model.eval()
    rpn, roi = model.rpn.head, model.roi_heads.box_predictor
    smoothing = [(block[0], 1.0) for block in model.backbone.fpn.layer_blocks]
    predictions = [(rpn.cls_logits, 2.0), (rpn.bbox_pred, 0.3), (roi.cls_score, 2.0), (roi.bbox_pred, 1.0)]
    for layer, deviation in smoothing + predictions:
        standardise(layer, deviation, lambda: model([image / 255]))


def standardise(layer: nn.Module, deviation: float, run: Run) -> None:
    """Scale and shift a layer so that each of its outputs has mean 0 and this standard deviation in a run."""
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _, __, output: seen.append(output.transpose(0, 1).flatten(1)))
    run()
    hook.remove()
    outputs = torch.cat(seen, dim=1)
    scale = deviation / outputs.std(dim=1)
    layer.bias.copy_((layer.bias - outputs.mean(dim=1)) * scale)  # type: ignore[operator, union-attr]
    layer.weight.mul_(scale.reshape(-1, *[1] * (layer.weight.ndim - 1)))  # type: ignore[operator, union-attr]


def require_equal(theirs: dict[str, Tensor], ours: tuple[np.ndarray, ...]) -> None:
    """Stop unless nearly all detections of both have a twin."""
    boxes_xyxy, scores, labels, _, (count,) = (torch.from_numpy(each) for each in ours)
    overlaps = iou(theirs["boxes"], boxes_xyxy[0, :count]) * (theirs["labels"][:, None] == labels[0, :count] + 1)
    near = (theirs["scores"][:, None] - scores[0, :count]).abs() < 1e-3
    twins = (overlaps > 0.99) & near
    rate = min(twins.any(dim=side).double().mean().item() for side in (0, 1))
    print(f"{count} detections, {100 * rate:.1f} % of them the same in torchvision and in ours, both in float32")
    if count < 50 or rate < 0.97:
        raise SystemExit("the two do not find the same: nothing is worth timing")


def photo(size: tuple[int, int], number: int = 0) -> Tensor:
    """(3, height, width) uint8: a sample photograph, enlarged; mirrored ones come after all were used."""
    paths = sample_images()
    picture = read_image(paths[number % len(paths)]).resize(size[::-1])
    image = to_tensor(picture)
    return image.flip(2) if number >= len(paths) else image


def network_input(size: tuple[int, int], number: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The same as a graph takes it: (1, height, width, 3) uint8 and its size."""
    return photo(size, number).permute(1, 2, 0)[None].contiguous().numpy(), np.array([size], dtype=np.float32)


def run_of(runtime: Runtime, pixels: np.ndarray, sizes: np.ndarray) -> Run:
    """One image through a runtime of ours."""
    return lambda: runtime(pixels, sizes)


def four_at_a_time(runtime: Runtime, pixels: np.ndarray, sizes: np.ndarray) -> Run:
    """Four images through two streams."""
    pool = ThreadPoolExecutor(2)
    return lambda: list(pool.map(lambda _: runtime(pixels, sizes), range(4)))


def openvino_run(path: Path, image: np.ndarray, precision: str) -> Run:
    """One image through the peer's export in OpenVINO."""
    config = {"INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": 1}
    request = require("openvino").Core().compile_model(path, "CPU", config).create_infer_request()
    return lambda: request.infer({0: image}, share_inputs=True)


def onnx_run(path: Path, image: np.ndarray) -> Run:
    """One image through the peer's export in ONNX Runtime."""
    session = require("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"image": image})


def as_markdown(figures: dict[str, dict[str, float]], found: dict[str, float], rounds: int) -> str:
    """A table of milliseconds and the ratios."""
    lines = [f"{', '.join(f'{key} {value}' for key, value in surroundings().items())}; {rounds} rounds", ""]
    lines += ["| variant | ms min | median | max |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {each['min']:.1f} | {each['median']:.1f} | {each['max']:.1f} |" for name, each in figures.items()
    ]
    lines += ["", *(f"{name}: {value:.2f}" for name, value in found.items())]
    return "\n".join(lines)


def surroundings() -> dict[str, str]:
    """What the figures depend on."""
    names = ("torchvision", "onnxruntime", "openvino")
    return machine() | {name: require(name).__version__.split("-")[0] for name in names}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters print their progress."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


if __name__ == "__main__":
    main()
