"""Export a trained detector, and prove that the graph is the detector."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image

from ..data.annotated import AnnotatedImages
from ..data.images import as_rgb_array, image_wh, read_image
from ..data.paths import MAX_PIXELS
from ..data.pixels import SizeHW
from ..data.samples import sample_images
from ..detectors import Detector
from ..errors import ConfigError, ExportError
from ..evaluation.evaluate import evaluate
from ..files import write_bytes, write_json
from ..graph.exported import Exported
from ..graph.quantize import Sample
from ..graph.write import require_possible, write_graph
from ..inference.engines import Engine, network_input
from ..inference.fold import folded
from ..inference.graph_cache import open_exported, published
from ..inference.torch_engine import TorchEngine
from ..inference.weights_engine import describe
from ..weights.checkpoint import load_weights
from .parity import BATCHES, MATCH_IOU, Parity, compare, shapes_of

LEAST_MATCHED = 0.995
"""Share of detections with a match that a float32 graph needs."""

CALIBRATION_IMAGES = 300
"""Most that int8 is calibrated with, evenly spread over those given; more change nothing but the time."""

MOST_LOST = {"float32": 0.05, "bf16": 0.2, "int8": 1.0}
"""Points of AP that a graph may lose, by precision."""


_COLUMNS = (
    "image",
    "batch",
    "detections",
    "of the graph",
    "matched",
    "box difference, px",
    "score difference",
    "PyTorch, ms",
    "graph, ms",
)


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export.

    Attributes:
        format: `onnx`, `openvino` or `torch`.
        precision: `float32`; `bf16` for openvino and torch; `int8` for onnx and openvino.
        pixels: the graph takes uint8 pixels and normalises them; otherwise float32, normalised as in training.
        resizes: the graph also brings images to the network's size.
        size_hw: fixed height and width; by default any.
        detections: most an image; by default the detector's own number.
        max_pixels: larger images, to calibrate and compare with, are an error.
    """

    format: str = "onnx"
    precision: str = "float32"
    pixels: bool = True
    resizes: bool = False
    size_hw: SizeHW | None = None
    detections: int | None = None
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class Report:
    """What an export is worth.

    Attributes:
        exported: what was written.
        engine: that ran it.
        parity: with the PyTorch model in float32.
        ap_before, ap_after: COCO AP in 0..1 of the PyTorch model and of the graph, when data was given.
    """

    exported: Exported
    engine: str
    parity: Parity
    ap_before: float | None = None
    ap_after: float | None = None


class Watcher(Protocol):
    """Told how far an export is."""

    def on_stage(self, name: str, steps: int | None) -> None:
        """A stage begins, of so many steps when that is known."""

    def on_step(self) -> None:
        """A step of the stage is done."""


class NoWatcher:
    """Ignores what it is told."""

    def on_stage(self, name: str, steps: int | None) -> None:
        """See `Watcher`."""

    def on_step(self) -> None:
        """See `Watcher`."""


def export(
    weights: Path,
    out: Path,
    config: ExportConfig,
    *,
    photos: Sequence[Path] = (),
    data: AnnotatedImages | None = None,
    detector: Detector | None = None,
    watcher: Watcher | None = None,
) -> Report:
    """Write a folder with the graph of a detector, its description, and a report of how it compares.

    Args:
        weights: of `save_weights`.
        out: the folder; an exported model that is there is replaced, anything else is an error.
        config: what to export.
        photos: images to calibrate int8 with, and to compare on; by default those inside the package.
        data: to measure AP on, before and after.
        detector: of your own, to be filled, where the weights are of such a one.
        watcher: is told how far it is.
    Raises:
        CheckpointError: the weights are damaged.
        ConfigError: a format, precision or option that is not possible, or int8 without images.
        DataError: one of the photos is no image, or has more than `max_pixels`.
        ExportError: the graph cannot be made, finds something else, or loses too much AP; nothing is written then.
    """
    watcher = watcher or NoWatcher()
    detector, card = load_weights(weights, detector=detector)
    if config.detections is not None:
        detector.postprocess = dataclasses.replace(detector.postprocess, detections=config.detections)
    choices = {name: getattr(config, name) for name in ("format", "precision", "pixels", "resizes", "size_hw")}
    exported = describe(card, detector, **choices)
    require_possible(exported)
    if config.precision == "int8" and not photos:
        raise ConfigError("int8 is calibrated with images like those that the model will see: give some hundred")
    for path in photos:
        image_wh(path, max_pixels=config.max_pixels)  # better known before the graph is made
    with published(out) as folder:
        watcher.on_stage("writing the graph", None)
        write_graph(folder, folded(detector), exported, _samples(photos, exported, config.max_pixels))
        graph, exported = open_exported(folder)
        model = TorchEngine(detector, torch.device("cpu"), "float32")
        pictures = [read_image(path, max_pixels=config.max_pixels) for path in (list(photos)[:6] or sample_images())]
        parity = _compare(graph, model, pictures, exported, watcher)
        report = Report(exported, graph.name, parity)
        if data is not None:
            report = dataclasses.replace(
                report,
                ap_before=_measured(model, "AP of the PyTorch model", data, config, exported, watcher),
                ap_after=_measured(graph, "AP of the graph", data, config, exported, watcher),
            )
        require_good(report)
        write_json(folder / "report.json", dataclasses.asdict(report))
        write_bytes(folder / "report.md", as_markdown(report).encode())
    return report


def require_good(report: Report) -> None:
    """
    Raises:
        ExportError: too few detections have matches, or too much AP is lost.
    """
    precision, matched = report.exported.precision, report.parity.matched
    if precision == "float32" and matched < LEAST_MATCHED:
        raise ExportError(
            f"the exported graph finds other objects than the PyTorch model: {100 * matched:.1f} % of the detections "
            f"match, {100 * LEAST_MATCHED:.1f} % are needed; nothing was written"
        )
    if report.ap_before is not None and report.ap_after is not None:
        lost = 100 * (report.ap_before - report.ap_after)
        if lost > MOST_LOST[precision]:
            raise ExportError(
                f"the {precision} graph loses {lost:.2f} points of AP ({100 * report.ap_before:.2f} to "
                f"{100 * report.ap_after:.2f}), at most {MOST_LOST[precision]} may be lost; nothing was written"
            )


def as_markdown(report: Report) -> str:
    """The report for people."""
    exported, parity = report.exported, report.parity
    lines = [
        f"# {exported.model} as {exported.format}, {exported.precision}",
        "",
        f"Against PyTorch in float32, on the CPU; the graph in {report.engine}. "
        f"{100 * parity.matched:.2f} % of the detections have a match of the same label at IoU above "
        f"{MATCH_IOU[exported.precision]}; differences are those of matches.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
    ]
    for case in parity.cases:
        shape = f"{case.shape[0]} x {case.shape[1]}" + " \\*" * case.resampled
        differences = f"{case.box_difference:.3g} | {case.score_difference:.2g}"
        times = f"{case.torch_ms:.1f} | {case.graph_ms:.1f}"
        share = f"{100 * case.matched:.2f} %"
        lines.append(
            f"| {shape} | {case.batch} | {case.detections} | {case.found} | {share} | {differences} | {times} |"
        )
    if any(case.resampled for case in parity.cases):
        lines += ["", "\\* Resized inside the graph, to pixels that differ a little from PyTorch's: not counted above."]
    if report.ap_before is not None and report.ap_after is not None:
        lines += ["", f"AP {100 * report.ap_before:.2f} before, {100 * report.ap_after:.2f} after."]
    return "\n".join(lines) + "\n"


def _compare(
    graph: Engine, model: Engine, pictures: Sequence[Image.Image], exported: Exported, watcher: Watcher
) -> Parity:
    watcher.on_stage("comparing with PyTorch", len(shapes_of(exported.preprocess)) * len(BATCHES))
    return compare(graph, model, pictures, exported, on_case=watcher.on_step)


def _measured(
    engine: Engine, stage: str, data: AnnotatedImages, config: ExportConfig, exported: Exported, watcher: Watcher
) -> float:
    watcher.on_stage(stage, len(data.records))

    def advance(images: int) -> None:
        for _ in range(images):
            watcher.on_step()

    found = evaluate(engine, data, exported.preprocess, max_pixels=config.max_pixels, on_images=advance)
    return found.metrics["AP"]


def _samples(photos: Sequence[Path], exported: Exported, max_pixels: int) -> Iterator[Sample]:
    """What the network gets of these photos, one a batch, to calibrate with."""
    for photo in photos[:: -(-len(photos) // CALIBRATION_IMAGES) or 1]:
        yield network_input([as_rgb_array(photo, max_pixels=max_pixels)], exported, exported.preprocess)
