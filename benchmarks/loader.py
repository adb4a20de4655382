"""How many training images a second the loader gives, by loading processes, and the milliseconds of each part of one.

python benchmarks/loader.py DATA [--images DIR] [--crop 512] [--json FILE]

DATA as for `fpnkit train`. A GPU that trains at some rate is fed when the loader gives as many; processes add up until
the cores are used.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fpnkit.data.annotated import AnnotatedImages
from fpnkit.data.augment import Augment, AugmentConfig, record_tensor
from fpnkit.data.loader import make_training_loader
from fpnkit.data.preprocess import Preprocess
from fpnkit.data.read import read_data
from fpnkit.device import machine
from fpnkit.files import write_json
from fpnkit.zoo import preset

BATCH, IMAGES = 8, 320


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--images", type=Path, metavar="DIR")
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    data = read_data(arguments.data, images_dir=arguments.images)
    preprocess, augment = Preprocess(preset("faster_rcnn_r50_fpn").preprocess), AugmentConfig(crop=arguments.crop)
    rates = {workers: rate(data, preprocess, augment, workers) for workers in processes()}
    parts = milliseconds(data, preprocess, augment)
    for workers, images in rates.items():
        print(f"{workers} loading processes: {images:.0f} images a second")
    print(", ".join(f"{name} {value:.1f} ms" for name, value in parts.items()))
    if arguments.json:
        write_json(arguments.json, {"images_a_second": rates, "milliseconds": parts, "machine": machine()})


def processes() -> list[int]:
    """0, 1, 2, 4, ... up to the cores."""
    cores = os.cpu_count() or 1
    return [0, *(2**power for power in range(cores.bit_length()) if 2**power <= cores)]


def rate(data: AnnotatedImages, preprocess: Preprocess, augment: AugmentConfig, workers: int) -> float:
    """Images a second of an epoch's beginning; starting the processes is not counted."""
    loader, _ = make_training_loader(data, preprocess, augment, seed=0, batch_size=BATCH, workers=workers)
    batches = iter(loader)
    next(batches)
    began, images = time.perf_counter(), 0
    for batch, _, _ in batches:
        images += len(batch)
        if images >= IMAGES:
            break
    return images / (time.perf_counter() - began)


def milliseconds(data: AnnotatedImages, preprocess: Preprocess, augment: AugmentConfig) -> dict[str, float]:
    """Median cost of an image by part, on one thread."""
    torch.set_num_threads(1)
    change, times = Augment(augment, fill=(0, 0, 0)), {"decode": [], "augment": [], "normalise": []}

    def timed(part: str, run: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = run()
        times[part].append(1000 * (time.perf_counter() - began))
        return result

    for record in data.records[:IMAGES]:
        image = timed("decode", lambda record=record: record_tensor(record))
        crop, *_ = timed("augment", lambda image=image, record=record: change(image, record))
        hw = tuple(image.shape[1:])
        timed("normalise", lambda crop=crop, hw=hw: preprocess.normalise(preprocess.pixels([crop], [hw])))
    return {part: statistics.median(each) for part, each in times.items()}


if __name__ == "__main__":
    main()
