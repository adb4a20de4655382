"""What a model's settings are worth: python tools/variants.py MODEL VAL.json [IMAGES]

Scores one set of weights at several input sizes, with fewer proposals and, of a cascade, with its first stage alone.
Prints a Markdown table of COCO's AP and the time of an image in PyTorch on this machine, loading included.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
import time
from pathlib import Path

from fpnkit.data.annotated import AnnotatedImages, selected
from fpnkit.data.preprocess import Preprocess, PreprocessConfig
from fpnkit.data.read import read_data
from fpnkit.detectors import FasterRCNN
from fpnkit.evaluation.evaluate import evaluate
from fpnkit.heads import CascadeHead
from fpnkit.inference.predictor import find_model
from fpnkit.weights.checkpoint import load_weights

SIZES = ((480, 640), (560, 752), (600, 800), (640, 856), (720, 960))
PROPOSALS = (100, 200)
COLUMNS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def main(model: str, annotations: str, images: str | None) -> None:
    """Print the table."""
    detector, card = load_weights(find_model(model))
    data = read_data(annotations, images_dir=Path(images) if images else None)
    data = selected(data, card.classes, some=True)
    print(f"| variant | {' | '.join(COLUMNS)} | ms |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for short, long in SIZES:
        config = dataclasses.replace(card.preprocess, short_side=short, long_side=long)
        row(f"short side {short}, long side at most {long}", detector, data, config)
    for count in PROPOSALS:
        row(f"{count} proposals", with_proposals(detector, count), data, card.preprocess)
    if isinstance(detector.roi, CascadeHead):
        row("first stage alone", first_stage(detector), data, card.preprocess)


def with_proposals(detector: FasterRCNN, count: int) -> FasterRCNN:
    """The detector with fewer proposals for its RoI head."""
    made = copy.deepcopy(detector)
    made.rpn.config = dataclasses.replace(made.rpn.config, proposals=count)
    return made


def first_stage(detector: FasterRCNN) -> FasterRCNN:
    """The detector without the later stages of its cascade."""
    made = copy.deepcopy(detector)
    made.roi = made.roi.stages[0]
    return made


def row(name: str, detector: FasterRCNN, data: AnnotatedImages, config: PreprocessConfig) -> None:
    """Score one variant and print it."""
    began = time.perf_counter()
    metrics = evaluate(detector, data, Preprocess(config), precision="bf16").metrics
    milliseconds = 1000 * (time.perf_counter() - began) / len(data.records)
    figures = " | ".join(f"{100 * metrics[name]:.1f}" for name in COLUMNS)
    print(f"| {name} | {figures} | {milliseconds:.0f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) == 4 else None)
