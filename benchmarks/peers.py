"""fpnkit against torchvision on this machine: same weights, same image, same number of RoIs, interleaved in one run.

python benchmarks/peers.py --quick --json peers.json      five minutes, the four ratios
python benchmarks/peers.py --json peers.json              every variant, more rounds

Faster R-CNN ResNet-50-FPN at 800 x 1088, and the default model beside torchvision's MobileNetV3-FPN at 480 x 640.
Weights of ResNet-50 are random, spread so that there are 1,000 proposals and many detections: times are right, and so
is equality of results, which is checked here; accuracy is not measured.
"""

from __future__ import annotations

import argparse
import copy
import io
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import detection

from fpnkit.data.images import read_image, to_tensor
from fpnkit.data.samples import sample_images
from fpnkit.detectors import FasterRCNN
from fpnkit.engine.checkpoint import load_weights, write_json
from fpnkit.engine.predict import find_model
from fpnkit.graph.exported import Exported
from fpnkit.graph.runtimes import OnnxRuntime, OpenVinoRuntime, require
from fpnkit.graph.write import write_graph
from fpnkit.ops.boxes import iou
from fpnkit.zoo import from_torchvision, torchvision_preprocess

LARGE, SMALL = (800, 1088), (480, 640)

Run = Callable[[], Any]


def main() -> None:
    """Build, check, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only what the ratios need, fewer rounds")
    parser.add_argument("--json", type=Path, help="write figures and ratios here")
    parser.add_argument("--rounds", type=int, help="default: 30, or 8 with --quick")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_grad_enabled(False)
    rounds = arguments.rounds or (8 if arguments.quick else 30)
    with tempfile.TemporaryDirectory() as folder:
        variants = large_variants(Path(folder), quick=arguments.quick) | small_variants(Path(folder))
        times = interleaved(variants, rounds)
    figures = {name: summary(values) for name, values in times.items()}
    result = {"ratios": ratios(figures), **ratios(figures), "milliseconds": figures, "machine": machine(), "rounds": rounds}
    print(as_markdown(figures, result))
    if arguments.json:
        write_json(arguments.json, result)


def large_variants(folder: Path, *, quick: bool) -> dict[str, Run]:
    """ResNet-50-FPN in every runtime, with 1,000 RoIs; checked to find the same."""
    image = photo(LARGE)
    model = spread(detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None), image)
    pixels, sizes = image.permute(1, 2, 0)[None].contiguous().numpy(), np.array([LARGE], dtype=np.float32)
    peer = folder / "torchvision.onnx"
    with contextlib_quiet():
        torch.onnx.export(model, ([image / 255],), peer, opset_version=17, dynamo=False, input_names=["image"])
    detector = from_torchvision(model)
    ours = write(folder / "fpnkit", detector, model, LARGE)
    int8 = write(folder / "fpnkit-int8", detector, model, LARGE, precision="int8")
    runs = {
        "torchvision eager float32": lambda: model([image / 255]),
        "torchvision, OpenVINO bf16": openvino_runner(peer, image / 255, "bf16"),
        "fpnkit, OpenVINO bf16": runner(OpenVinoRuntime(ours, precision="bf16"), pixels, sizes),
        "fpnkit, OpenVINO int8": runner(OpenVinoRuntime(int8, precision="bf16"), pixels, sizes),
    }
    check_equal(model([image / 255])[0], OpenVinoRuntime(ours)(pixels, sizes))
    if quick:
        return runs
    few = copy.deepcopy(detector)
    ...
    return runs


if __name__ == "__main__":
    main()
