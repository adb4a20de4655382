"""fpnkit bench: what a model costs on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .photos import MODEL, add_compile, add_device, add_engine

if TYPE_CHECKING:
    from rich.table import Table

    from ..inference.bench import Bench

EPILOG = """\
examples:
  fpnkit bench default
  fpnkit bench default --engine openvino --precision bf16 --streams 2
  fpnkit bench person-onnx --image photo.jpg --json figures.json

prints milliseconds of one image, least, median and most over the rounds: of the whole from pixels to boxes, of
resizing, and in PyTorch of each part of the network; images a second with --streams passes at a time; peak memory.
"""


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "bench",
        help="speed and memory of a model here",
        description="Measure what a model costs on this machine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument(
        "--image", type=Path, metavar="FILE", help="to measure with (default: a photograph inside the package)"
    )
    parser.add_argument(
        "--rounds", type=int, default=20, metavar="N", help="measurements, after 3 to warm up (default: %(default)s)"
    )
    parser.add_argument(
        "--streams",
        type=int,
        default=1,
        metavar="N",
        help="passes at a time, of engines that run a graph (default: %(default)s)",
    )
    add_device(parser)
    add_engine(parser)
    add_compile(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Measure; 0 when done."""
    if min(arguments.rounds, arguments.streams) < 1:
        raise ConfigError("--rounds and --streams must be 1 or more")
    import dataclasses

    from ..data.images import as_rgb_array
    from ..data.samples import sample_images
    from ..files import write_json
    from ..inference.bench import bench
    from ..inference.predictor import load
    from .terminal import console, progress_bar, tell

    image = as_rgb_array(arguments.image or sample_images()[0])
    predictor = load(
        arguments.model,
        device=arguments.device,
        precision=arguments.precision,
        engine=arguments.engine,
        compiled=arguments.compile,
        streams=arguments.streams,
        on_message=tell,
    )
    with progress_bar() as progress:
        task = progress.add_task("measuring", total=arguments.rounds + 3, note="")
        measured = bench(
            predictor.engine,
            predictor.preprocess,
            image,
            rounds=arguments.rounds,
            streams=arguments.streams,
            on_round=lambda: progress.advance(task),
        )
    console.print(_table(measured))
    console.print(
        f"{measured.images_a_second:.1f} images a second with {measured.streams} at a time; "
        f"peak memory {'unknown' if measured.memory is None else f'{measured.memory:.0f} MiB'}",
    )
    console.print(", ".join(f"{name} {value}" for name, value in measured.machine.items()), style="dim")
    if arguments.json:
        write_json(arguments.json, dataclasses.asdict(measured))
    return 0


def _table(measured: Bench) -> Table:
    """Milliseconds by part."""
    from rich.table import Table

    sides, network = (" x ".join(map(str, size)) for size in (measured.size_hw, measured.network_hw))
    table = Table(
        title=f"{measured.engine}, one image of {sides}, for the network {network} (height x width); milliseconds",
        box=None,
        header_style="bold",
        title_justify="left",
    )
    table.add_column("part")
    for name in ("least", "median", "most"):
        table.add_column(name, justify="right")
    for name, cost in measured.parts.items():
        table.add_row(name, *(f"{value:.1f}" for value in (cost.minimum, cost.median, cost.maximum)))
    return table
