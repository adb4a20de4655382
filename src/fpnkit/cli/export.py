"""fpnkit export: one graph for every machine, with proof that it is the same detector."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .data_options import FORMATS, add_images_dir, read
from .photos import add_max_pixels

EPILOG = """\
examples:
  fpnkit export default --out person-onnx                           ONNX, any batch, height and width
  fpnkit export runs/mine --format openvino --out mine-openvino     faster on most CPUs
  fpnkit export runs/mine --int8 --calibrate photos/ --data val.json --images val/ --out mine-int8
  fpnkit export default --resize --out person-whole                 whole images in, boxes in their pixels out

writes to --out:
  model.onnx, model.xml with model.bin, or model.pt2
  fpnkit.json   classes, preprocessing, thresholds, version, hashes; `fpnkit.load(DIR)` and every verb take the folder
  report.md     what the graph finds beside what PyTorch finds, on real images of six shapes, in batches of 1 and 3

The export fails, and writes nothing, when fewer than 99.5 % of the detections of a float32 graph match those of
PyTorch; with --data, also when the graph loses more AP than 0.05 points (float32), 0.2 (bf16) or 1.0 (int8).
"""


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "export",
        help="ONNX, OpenVINO or torch.export, proven equal",
        description="Write a detector as one graph that other runtimes execute, and compare the two on real images.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="'default', 'coco80', a run's folder or a .safetensors file")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="a new folder, or that of an export, which is replaced"
    )
    parser.add_argument(
        "--format", choices=("onnx", "openvino", "torch"), default="onnx", help="of the graph (default: %(default)s)"
    )
    graph = parser.add_argument_group("the graph")
    precision = graph.add_mutually_exclusive_group()
    precision.add_argument(
        "--bf16", action="store_true", help="compute in bfloat16 instead of float32 (formats openvino, torch)"
    )
    precision.add_argument(
        "--int8", action="store_true", help="convolutions in int8, with --calibrate (formats onnx, openvino)"
    )
    graph.add_argument(
        "--size", type=_size, metavar="HxW", help="the only height and width of its images, like 480x640 (default: any)"
    )
    graph.add_argument(
        "--input",
        choices=("uint8", "float32"),
        default="uint8",
        help="uint8: (N, H, W, 3) RGB pixels, normalised inside; float32: (N, 3, H, W), normalised outside "
        "(default: %(default)s)",
    )
    graph.add_argument(
        "--resize", action="store_true", help="resize inside, too: the graph takes images of any size as they are"
    )
    graph.add_argument(
        "--detections", type=int, metavar="N", help="most boxes an image (default: the model's own number, mostly 100)"
    )
    proof = parser.add_argument_group("comparison with PyTorch")
    proof.add_argument(
        "--calibrate",
        type=Path,
        metavar="DIR",
        help="some hundred images like your own, for --int8; six of them are compared (default: three shipped ones)",
    )
    proof.add_argument("--data", nargs="+", metavar="DATA", help=f"to measure AP before and after: {FORMATS}")
    add_images_dir(proof)
    add_max_pixels(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Export; 0 when the graph was written and is as good as it must be."""
    if arguments.images and not arguments.data:
        raise ConfigError("--images says where the images of --data are, and there is no --data")
    if arguments.int8 and not arguments.calibrate:
        raise ConfigError("--int8 needs --calibrate DIR: a folder with some hundred images like your own")
    from ..data.images import find_images
    from ..export.export import ExportConfig, as_markdown, export
    from ..inference.predictor import find_model
    from ..pictures.plots import require_matplotlib
    from ..weights.checkpoint import read_card
    from .export_screen import ExportScreen
    from .terminal import console

    weights = find_model(arguments.model)
    if weights.is_dir():
        raise ConfigError(f"{weights}: exported already: export the checkpoint that it was made of")
    config = ExportConfig(
        format=arguments.format,
        precision="int8" if arguments.int8 else "bf16" if arguments.bf16 else "float32",
        pixels=arguments.input == "uint8",
        resizes=arguments.resize,
        size_hw=arguments.size,
        detections=arguments.detections,
        max_pixels=arguments.max_pixels,
    )
    photos = list(find_images([arguments.calibrate])) if arguments.calibrate else []
    data = None
    if arguments.data:
        require_matplotlib()
        data = read(
            arguments.data,
            images_dir=arguments.images,
            classes=read_card(weights).classes,
            some=True,
            max_pixels=arguments.max_pixels,
        )
    with ExportScreen() as screen:
        report = export(weights, arguments.out, config, photos=photos, data=data, watcher=screen)
    console.print(as_markdown(report), soft_wrap=True, markup=False, highlight=False)
    console.print(f"{report.exported.graph}, fpnkit.json, report.md and report.json in {arguments.out}", soft_wrap=True)
    return 0


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = map(int, text.lower().split("x"))
        if min(height, width) < 32:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH of 32 or more, like 480x640; got {text!r}") from None
    return height, width
