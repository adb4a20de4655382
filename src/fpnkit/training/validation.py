"""How good the network of a training is, on its validation data."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from itertools import chain

import torch

from ..data.annotated import AnnotatedImages
from ..data.loader import DetectionDataset, make_loader
from ..data.preprocess import Preprocess
from ..detectors import Detector
from ..device import mixed_precision
from ..evaluation.evaluate import Stopped, collect, find_of
from ..evaluation.scores import Evaluation, score
from ..inference.torch_engine import TorchEngine
from .distributed import Distributed

TIMED_IMAGES = 8
"""Images from which the time of an evaluation is estimated."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validation:
    """Evaluates a network while it is trained, with the processes sharing the images.

    Attributes:
        data: the validation data.
        preprocess: of the detector.
        device, precision: of the training.
        losses: images whose losses are computed as well.
        workers, max_pixels: of reading.
        distributed: the processes of the training.
    """

    data: AnnotatedImages
    preprocess: Preprocess
    device: torch.device
    precision: str
    losses: int
    workers: int
    max_pixels: int
    distributed: Distributed

    def evaluate(
        self, network: Detector, *, on_images: Callable[[int, int], None], should_stop: Callable[[], bool]
    ) -> Evaluation | None:
        """COCO's figures, those of proposals where the detector makes any, and `loss/...`.

        Args:
            network: in any mode, which it has again afterwards.
            on_images: told how many images of this process are done, and of how many.
            should_stop: asked after each image.
        Returns:
            None where a process was stopped.
        """
        mine = dataclasses.replace(self.data, records=self.data.records[self.distributed.rank :: self.distributed.size])
        total, done = len(mine.records), 0

        def count(images: int) -> None:
            nonlocal done
            done += images
            on_images(done, total)

        engine, found = TorchEngine(network, self.device, self.precision, live=True), None
        with contextlib.suppress(Stopped):
            found = collect(
                find_of(engine, self.preprocess.config),
                mine,
                workers=self.workers,
                max_pixels=self.max_pixels,
                on_images=count,
                should_stop=should_stop,
            )
        parts = self.distributed.gather(found)
        if any(part is None for part in parts):
            return None
        detections, proposals = (list(chain.from_iterable(part[kind] or () for part in parts)) for kind in (0, 1))
        proposes = any(part[1] is not None for part in parts)
        result = score(detections, proposals if proposes else None, self.data, most=network.postprocess.detections)
        return dataclasses.replace(result, metrics=result.metrics | self._losses(network))

    def seconds(self, network: Detector) -> float:
        """What an evaluation will take, estimated from a few images."""
        some = dataclasses.replace(self, data=self._first(TIMED_IMAGES), distributed=Distributed(), losses=0)
        began = time.perf_counter()
        some.evaluate(network, on_images=lambda done, total: None, should_stop=lambda: False)
        each = (time.perf_counter() - began) / len(some.data.records)
        return each * len(self.data.records) / self.distributed.size

    @torch.no_grad()
    def _losses(self, network: Detector) -> dict[str, float]:
        """Means over the first images; their samples are the same each time, and nothing else changes."""
        some = self._first(self.losses)
        dataset = DetectionDataset(some, self.preprocess, max_pixels=self.max_pixels)
        loader, _ = make_loader(dataset, batch_size=1, workers=0, shuffle=False)
        sums: dict[str, float] = {}
        was_training = network.training
        network.eval()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for batch, targets, _ in loader if some.records else ():
                with mixed_precision(self.device, self.precision):
                    images = self.preprocess.normalise(batch.to(self.device))
                    losses = network.losses(images, targets.to(self.device))
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + float(value) / len(some.records)
        network.train(was_training)
        return {f"loss/{name}": value for name, value in sums.items()}

    def _first(self, images: int) -> AnnotatedImages:
        return dataclasses.replace(self.data, records=self.data.records[:images])
