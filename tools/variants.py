"""What a model's settings are worth: python tools/variants.py MODEL VAL.json [IMAGES]

Scores one set of weights at several input sizes, with fewer proposals and, of a cascade, with its first stage alone.
Prints a Markdown table of COCO's AP and the time of an image in PyTorch on this machine, loading included.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

from fpnkit.data.annotated import AnnotatedImages, selected
from fpnkit.data.pixels import PreprocessConfig
from fpnkit.data.read import read_data
from fpnkit.detectors import Detector
from fpnkit.device import choose_device
from fpnkit.evaluation.evaluate import evaluate
from fpnkit.inference.torch_engine import TorchEngine
from fpnkit.settings import with_settings
from fpnkit.weights import ModelCard, find_weights, load_weights
from fpnkit.zoo import build

SIZES = ((480, 640), (560, 752), (600, 800), (640, 856), (720, 960))
PROPOSALS = (100, 200)
COLUMNS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def main(model: str, annotations: str, images: str | None) -> None:
    """Print the table."""
    path = find_weights(model)
    detector, card = load_weights(path)
    data = read_data(annotations, images_dir=Path(images) if images else None)
    data = selected(data, card.classes, some=True)
    print(f"| variant | {' | '.join(COLUMNS)} | ms |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for short, long in SIZES:
        config = dataclasses.replace(card.preprocess, short_side=short, long_side=long)
        row(f"short side {short}, long side at most {long}", detector, data, config)
    for count in PROPOSALS:
        row(f"{count} proposals", with_proposals(path, card, count), data, card.preprocess)
    if card.spec and card.spec.cascade:
        row("first stage alone", first_stage(detector, card), data, card.preprocess)


def with_proposals(path: Path, card: ModelCard, count: int) -> Detector:
    """The detector with fewer proposals for its RoI head."""
    fewer = build(with_settings(card.spec, [f"rpn.proposals={count}"]), len(card.classes))
    return load_weights(path, detector=fewer)[0]


def first_stage(detector: Detector, card: ModelCard) -> Detector:
    """The detector without the later stages of its cascade."""
    made = build(with_settings(card.spec, ["cascade=none"]), len(card.classes))
    state = {name.replace("roi.stages.0.", "roi."): value for name, value in detector.state_dict().items()}
    made.load_state_dict({name: state[name] for name in made.state_dict()})
    return made.eval()


def row(name: str, detector: Detector, data: AnnotatedImages, config: PreprocessConfig) -> None:
    """Score one variant and print it."""
    began = time.perf_counter()
    engine = TorchEngine(detector, choose_device("auto"), "bf16")
    metrics = evaluate(engine, data, config).metrics
    milliseconds = 1000 * (time.perf_counter() - began) / len(data.records)
    figures = " | ".join(f"{100 * metrics[name]:.1f}" for name in COLUMNS)
    print(f"| {name} | {figures} | {milliseconds:.0f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) == 4 else None)
