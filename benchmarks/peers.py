"""fpnkit against torchvision on this machine: same weights, same image, same number of RoIs, interleaved in one run.

python benchmarks/peers.py --quick --json peers.json      the four ratios, in less than five minutes
python benchmarks/peers.py --out docs/benchmarks          every variant: peers.json, peers.md, peers.png

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

from fpnkit.data.images import read_image
from fpnkit.data.preprocess import PreprocessConfig
from fpnkit.data.samples import sample_images
from fpnkit.detectors import Detector
from fpnkit.device import machine
from fpnkit.files import write_bytes, write_json
from fpnkit.graph.quantize import quantize
from fpnkit.graph.runtimes import OnnxRuntime, OpenVinoRuntime, Runtime, require
from fpnkit.graph.write import write_onnx
from fpnkit.inference.predictor import find_model
from fpnkit.inference.torch_engine import TorchEngine
from fpnkit.ops.boxes import iou
from fpnkit.pictures.plots import new_figure, write_figure
from fpnkit.weights.checkpoint import load_weights
from fpnkit.zoo import from_torchvision, torchvision_preprocess

LARGE, SMALL = (800, 1088), (480, 640)
CALIBRATION_IMAGES = 6
QUICK_SECONDS, LEAST_ROUNDS = 240, 3

RATIOS = {
    "bf16_vs_tv_openvino": ("torchvision, OpenVINO bf16", "fpnkit, OpenVINO bf16"),
    "int8_vs_tv_openvino": ("torchvision, OpenVINO bf16", "fpnkit, OpenVINO int8"),
    "bf16_vs_tv_eager": ("torchvision eager, float32", "fpnkit, OpenVINO bf16"),
    "default_vs_tv_mobilenet": ("torchvision MobileNetV3-FPN eager, float32", "fpnkit default, OpenVINO bf16"),
}
"""Name -> the peer and us: how many times faster we are, by medians."""

STREAMED = "fpnkit, 300 RoIs, OpenVINO int8, 2 streams"
"""Computes four images a run: its figures are those of one."""

Run = Callable[[], Any]


def main() -> None:
    """Build, check, measure, write."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only what the ratios need")
    parser.add_argument("--rounds", type=int, help="default: 30, or 8 with --quick")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write figures, table and picture here")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_grad_enabled(False)
    rounds, until = arguments.rounds or 30, float("inf")
    if arguments.quick:
        rounds, until = arguments.rounds or 8, began + QUICK_SECONDS
    with tempfile.TemporaryDirectory() as folder:
        variants = large_variants(Path(folder), quick=arguments.quick) | small_variants(Path(folder))
        figures = interleaved(variants, rounds, until)
    found = {name: figures[peer]["median"] / figures[ours]["median"] for name, (peer, ours) in RATIOS.items()}
    content = {**found, "milliseconds": figures, "machine": surroundings()}
    print(as_markdown(figures, found))
    if arguments.json:
        write_json(arguments.json, content)
    if arguments.out:
        write_json(arguments.out / "peers.json", content)
        write_bytes(arguments.out / "peers.md", as_markdown(figures, found).encode())
        draw(arguments.out / "peers.png", figures)


def large_variants(folder: Path, *, quick: bool) -> dict[str, Run]:
    """ResNet-50-FPN with 1,000 RoIs in every runtime, checked to find the same."""
    image, (pixels, sizes) = photo(LARGE), network_input(LARGE)
    model = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    spread(model, image)
    detector, preprocess = from_torchvision(model), torchvision_preprocess(model)
    ours, int8 = written(folder / "ours", detector, preprocess)
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
    eager = TorchEngine(detector, torch.device("cpu"), "float32")
    detector.rpn.config = replace(detector.rpn.config, proposals=300)
    few, few_int8 = written(folder / "few", detector, preprocess)
    return variants | {
        "torchvision, OpenVINO float32": openvino_run(peer, (image / 255).numpy(), "f32"),
        "torchvision, ONNX Runtime float32": onnx_run(peer, (image / 255).numpy()),
        "fpnkit eager, float32": lambda: eager.detect([image.permute(1, 2, 0).numpy()], preprocess),
        "fpnkit, OpenVINO float32": run_of(OpenVinoRuntime(ours), pixels, sizes),
        "fpnkit, ONNX Runtime float32": run_of(OnnxRuntime(ours), pixels, sizes),
        "fpnkit, 300 RoIs, OpenVINO bf16": run_of(OpenVinoRuntime(few, precision="bf16"), pixels, sizes),
        "fpnkit, 300 RoIs, OpenVINO int8": run_of(OpenVinoRuntime(few_int8, precision="bf16"), pixels, sizes),
        STREAMED: four_at_a_time(OpenVinoRuntime(few_int8, precision="bf16", streams=2), pixels, sizes),
    }


def small_variants(folder: Path) -> dict[str, Run]:
    """The default model with its weights, and torchvision's small one with random ones, on the same image."""
    image, (pixels, sizes) = photo(SMALL), network_input(SMALL)
    peer = detection.fasterrcnn_mobilenet_v3_large_fpn(
        weights=None, weights_backbone=None, num_classes=2, min_size=SMALL[0], max_size=SMALL[1]
    ).eval()
    detector, card = load_weights(find_model("default"))
    path = folder / "default.onnx"
    with quiet():
        write_onnx(path, detector, card.preprocess)
    return {
        "torchvision MobileNetV3-FPN eager, float32": lambda: peer([image / 255]),
        "fpnkit default, OpenVINO bf16": run_of(OpenVinoRuntime(path, precision="bf16"), pixels, sizes),
    }


def interleaved(variants: dict[str, Run], rounds: int, until: float) -> dict[str, dict[str, float]]:
    """Milliseconds an image of each variant: all of them in turn, round after round, after one round of warming up.

    Args:
        variants: what to time.
        rounds: at most; `LEAST_ROUNDS` when time runs out.
        until: on the clock of `time.perf_counter`.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        if number > LEAST_ROUNDS and time.perf_counter() > until:
            break
        for name, run in variants.items():
            began = time.perf_counter()
            run()
            if number:
                images = 4 if name == STREAMED else 1
                times[name].append(1000 * (time.perf_counter() - began) / images)
    return {
        name: {
            "min": min(each),
            "median": statistics.median(each),
            "spread": float(np.subtract(*np.percentile(each, [75, 25]))),
            "rounds": len(each),
        }
        for name, each in times.items()
    }


def written(folder: Path, detector: Detector, preprocess: PreprocessConfig) -> tuple[Path, Path]:
    """The detector's ONNX graph of any size, and the same in int8, calibrated with the sample photographs."""
    folder.mkdir()
    onnx, paths = require("onnx"), (folder / "float32.onnx", folder / "int8.onnx")
    with quiet():
        write_onnx(paths[0], detector, preprocess)
        samples = [network_input(LARGE, number) for number in range(CALIBRATION_IMAGES)]
        onnx.save(quantize(onnx.load(paths[0]), samples), paths[1])
    return paths


def spread(model: Any, image: Tensor) -> None:
    """Give a random torchvision detector the statistics of a photograph, and predictions that spread."""
    for name, module in model.backbone.body.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            module.weight.fill_(0.2 if name.endswith("bn3") else 1.0)  # training keeps residual branches small
    sides = model.transform.min_size, model.transform.max_size
    model.transform.min_size, model.transform.max_size = (image.shape[1] // 2,), image.shape[2] // 2  # faster
    model.eval().backbone.train()
    model.backbone(model.transform([image / 255])[0].tensors)
    model.eval()
    rpn, roi = model.rpn.head, model.roi_heads.box_predictor
    smoothing = [(block[0], 1.0) for block in model.backbone.fpn.layer_blocks]
    predictions = [(rpn.cls_logits, 2.0), (rpn.bbox_pred, 0.3), (roi.cls_score, 2.0), (roi.bbox_pred, 1.0)]
    for layer, deviation in smoothing + predictions:
        standardise(layer, deviation, lambda: model([image / 255]))
    model.transform.min_size, model.transform.max_size = sides


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
    """Stop unless nearly all detections of both have a match."""
    boxes_xyxy, scores, labels, _, (count,) = (torch.from_numpy(each) for each in ours)
    overlaps = iou(theirs["boxes"], boxes_xyxy[0, :count]) * (theirs["labels"][:, None] == labels[0, :count] + 1)
    near = (theirs["scores"][:, None] - scores[0, :count]).abs() < 1e-3
    matches = (overlaps > 0.99) & near
    rate = min(matches.any(dim=side).double().mean().item() for side in (0, 1))
    print(f"{count} detections, {100 * rate:.1f} % of them the same in torchvision and in ours, both in float32")
    if count < 50 or rate < 0.97:
        raise SystemExit("the two do not find the same: nothing is worth timing")


def photo(size: tuple[int, int], number: int = 0) -> Tensor:
    """(3, height, width) uint8: a sample photograph, enlarged; mirrored ones come after all were used."""
    paths = sample_images()
    picture = read_image(paths[number % len(paths)]).resize(size[::-1])
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
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


def as_markdown(figures: dict[str, dict[str, float]], found: dict[str, float]) -> str:
    """A table of milliseconds and the ratios."""
    lines = ["| variant | ms, least | median | between quartiles | rounds |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {each['min']:.1f} | {each['median']:.1f} | {each['spread']:.1f} | {each['rounds']} |"
        for name, each in figures.items()
    ]
    lines += ["", "| how many times faster, by medians | |", "|---|---|"]
    lines += [f"| {name} | {value:.2f} |" for name, value in found.items()]
    return "\n".join([*lines, "", ", ".join(f"{key} {value}" for key, value in surroundings().items()) + ".", ""])


def draw(path: Path, figures: dict[str, dict[str, float]]) -> None:
    """Bars of the medians of the large model, and of the small ones; thin lines from least to upper quartile."""
    figure = new_figure(10, 6.5, layout="constrained")
    small = [name for name in figures if "default" in name or "MobileNet" in name]
    groups = {"ResNet-50-FPN, 800 x 1088": [name for name in figures if name not in small], "480 x 640": small}
    panels = figure.subplots(2, 1, height_ratios=[len(each) + 1 for each in groups.values()])
    for axes, (title, names) in zip(panels, groups.items(), strict=True):
        medians = [figures[name]["median"] for name in names]
        below = [figures[name]["median"] - figures[name]["min"] for name in names]
        above = [figures[name]["spread"] for name in names]
        colours = ["#9aa5b1" if name.startswith("torchvision") else "#2374ab" for name in names]
        bars = axes.barh(names, medians, color=colours, xerr=[below, above], error_kw={"elinewidth": 0.8})
        axes.bar_label(bars, labels=[f" {value:.0f}" for value in medians], fontsize=8, padding=12)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"{title}: milliseconds an image, median", fontsize=10, loc="left")
        axes.tick_params(labelsize=8)
    write_figure(path, figure)


def surroundings() -> dict[str, str]:
    """What the figures depend on."""
    names = ("torchvision", "onnxruntime", "openvino")
    able = require("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    bf16 = "yes" if "BF16" in able else "no: what is asked to be bf16 runs in float32"
    versions = {name: require(name).__version__.split("-")[0] for name in names}
    return machine() | versions | {"date": time.strftime("%Y-%m-%d"), "bf16": bf16}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters print their progress."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


if __name__ == "__main__":
    main()
