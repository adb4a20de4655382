"""How the cost of the default model grows: milliseconds and memory against image size, batch, RoIs, boxes and levels.

python benchmarks/growth.py --out docs/benchmarks      growth.json, growth.md, growth.png

Every point runs in a process of its own, whose peak of memory is its own. Image size and batch with the shipped weights
in PyTorch and OpenVINO, in float32; RoIs, boxes and levels in PyTorch, levels with random weights.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fpnkit.backbones import Backbone
from fpnkit.data.images import as_rgb_array, read_image
from fpnkit.data.preprocess import PreprocessConfig
from fpnkit.data.samples import sample_images
from fpnkit.detectors import FasterRCNN
from fpnkit.device import machine
from fpnkit.files import write_bytes, write_json
from fpnkit.heads import CascadeHead, RPNHead
from fpnkit.inference.engines import Engine
from fpnkit.inference.predictor import find_model, load
from fpnkit.inference.torch_engine import TorchEngine
from fpnkit.pictures.plots import new_figure, write_figure
from fpnkit.pyramids import FPN
from fpnkit.weights.checkpoint import load_weights

ROUNDS = 7
SIDE = 480

POINTS: dict[str, tuple[Sequence[float], Sequence[str]]] = {
    "image side, pixels": ((256, 384, 512, 768, 1024, 1536, 2048), ("torch", "openvino")),
    "images in a batch": ((1, 2, 4, 8, 16), ("torch", "openvino")),
    "RoIs": ((50, 100, 300, 600, 1000), ("torch",)),
    "least score of a box": ((0.9, 0.5, 0.05, 0.0), ("torch",)),
    "pyramid levels": ((2, 3, 4, 5), ("torch",)),
}
"""What grows -> its values, and the engines that it is measured in."""


def main() -> None:
    """Measure every point, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write figures, table and picture here")
    parser.add_argument("--point", nargs=3, metavar=("WHAT", "VALUE", "ENGINE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        what, value, engine = arguments.point
        print(json.dumps(measured(what, float(value), engine)))
        return
    points = [(what, value, engine) for what, (values, able) in POINTS.items() for engine in able for value in values]
    found = [in_own_process(*point) for point in points]
    print(as_markdown(found))
    if arguments.out:
        write_json(arguments.out / "growth.json", {"machine": surroundings(), "points": found})
        write_bytes(arguments.out / "growth.md", as_markdown(found).encode())
        draw(arguments.out / "growth.png", found)


def in_own_process(what: str, value: float, engine: str) -> dict[str, Any]:
    """A point, and the names of it."""
    words = [sys.executable, __file__, "--point", what, str(value), engine]
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    point = {"what": what, "value": value, "engine": engine, **json.loads(printed.splitlines()[-1])}
    print(point, file=sys.stderr)
    return point


@torch.no_grad()
def measured(what: str, value: float, name: str) -> dict[str, float]:
    """Milliseconds an image, boxes found, peak of memory in MiB."""
    engine, config, count = prepared(what, value, name)
    image = as_rgb_array(read_image(sample_images()[0]).resize((config.long_side, config.short_side)))
    run: Callable[[], list] = lambda: engine.detect([image] * count, config)  # noqa: E731
    run()
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        found = run()
        times.append(1000 * (time.perf_counter() - began) / count)
    return {
        "least": min(times),
        "median": statistics.median(times),
        "boxes": float(len(found[0]["scores"])),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def prepared(what: str, value: float, name: str) -> tuple[Engine, PreprocessConfig, int]:
    """The engine, its image size and the images a pass of a point."""
    detector, card = load_weights(find_model("default"))
    side = int(value) if what.startswith("image side") else SIDE
    config = replace(card.preprocess, short_side=side, long_side=side)
    if name == "openvino":
        return load("default", engine="openvino").engine, config, int(value) if "batch" in what else 1
    if what == "RoIs":
        detector.rpn.config = replace(detector.rpn.config, proposals=int(value), per_level=max(500, int(value)))
    elif what.startswith("least score"):
        detector.postprocess = replace(detector.postprocess, min_score=value)
    elif what == "pyramid levels":
        detector = with_levels(int(value))
    return TorchEngine(detector, torch.device("cpu"), "float32"), config, int(value) if "batch" in what else 1


def with_levels(count: int) -> FasterRCNN:
    """The default model with so many levels from the coarsest, P6, on; pyramid and heads with random weights."""
    torch.manual_seed(0)
    template, _ = load_weights(find_model("default"))
    kept = template.backbone.levels[5 - count :]
    pyramid = FPN(kept, channels=template.pyramid.levels[0].channels)
    rpn = RPNHead(pyramid.levels, template.rpn.config)
    config, cascade = template.roi.config, template.roi.cascade
    roi = CascadeHead(pyramid.levels, 1, roi_levels=len(kept), config=config, cascade=cascade)
    return FasterRCNN(backbone=_Some(template.backbone, kept), pyramid=pyramid, rpn=rpn, roi=roi).eval()


class _Some(Backbone):
    """A backbone that gives only some of its levels."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.body(images)
        return {level.name: features[level.name] for level in self.levels}


def as_markdown(found: Sequence[dict[str, Any]]) -> str:
    """A table of all points."""
    lines = [
        "| what | value | engine | ms an image, least | median | boxes | peak memory, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each['what']} | {each['value']:g} | {each['engine']} | {each['least']:.1f} | {each['median']:.1f} | "
        f"{each['boxes']:.0f} | {each['memory']:.0f} |"
        for each in found
    ]
    return "\n".join([*lines, "", ", ".join(f"{key} {value}" for key, value in surroundings().items()) + ".", ""])


def surroundings() -> dict[str, str]:
    """What the figures depend on."""
    return machine() | {"date": time.strftime("%Y-%m-%d"), "rounds": str(ROUNDS)}


def draw(path: Path, found: Sequence[dict[str, Any]]) -> None:
    """A column for what grows: milliseconds above, memory below; dotted, in proportion to the pixels."""
    figure = new_figure(15, 6, layout="constrained")
    panels = figure.subplots(2, len(POINTS))
    for column, (what, (_, engines)) in enumerate(POINTS.items()):
        for row, (key, label) in enumerate((("least", "ms an image, least"), ("memory", "peak memory, MiB"))):
            axes = panels[row, column]
            for engine in engines:
                points = [each for each in found if (each["what"], each["engine"]) == (what, engine)]
                x, y = [each["value"] for each in points], [each[key] for each in points]
                (line,) = axes.plot(x, y, marker="o", markersize=3, label=engine)
                if what.startswith("image side") and key == "least":
                    proportion = [y[-1] * (side / x[-1]) ** 2 for side in x]
                    axes.plot(x, proportion, ":", color=line.get_color(), linewidth=1)
            axes.set(xlabel=what, ylim=(0, 1.1 * max(each[key] for each in found if each["what"] == what)))
            axes.set_ylabel(label if column == 0 else "")
            axes.grid(alpha=0.3)
            if what.startswith("image side") and key == "least":
                axes.set(xscale="log", yscale="log", title="dotted: in proportion to pixels", ylim=(20, None))
                axes.set_xticks(x, [f"{side:g}" for side in x], rotation=45)
                axes.minorticks_off()
            if len(engines) > 1:
                axes.legend(frameon=False, fontsize=8)
    write_figure(path, figure)


if __name__ == "__main__":
    main()
