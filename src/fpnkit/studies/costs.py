"""What a row costs: parameters, multiplications, milliseconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..detectors.pyramid_network import padded_hw
from ..heads import RPNHead
from ..structures import ImageBatch
from .tasks import Task

ROUNDS = 15


def measure_costs(tasks: Mapping[str, Task], side: int) -> dict[str, dict[str, float]]:
    """Costs of each system on one blank image of side x side pixels on the CPU in float32, in inference.

    Args:
        tasks: by key of their row.
        side: pixels.
    Returns:
        For each: `parameters` of the whole and `pyramid_parameters`, in millions; `gmacs` of backbone, pyramid and RPN
        or, for Fast R-CNN, backbone and pyramid (RoIs are few or many, as the image has it); `pyramid_gmacs`;
        `anchors`, in thousands; and `ms`, `pyramid_ms`: the median of interleaved rounds of those parts.
    """
    images = torch.zeros(1, 3, side, side).contiguous(memory_format=torch.channels_last)
    batch = ImageBatch(images, torch.tensor([[side, side]]), torch.tensor([[side, side]]))
    costs: dict[str, dict[str, float]] = {}
    with torch.inference_mode():
        for key, task in tasks.items():
            detector = task.detector.cpu().eval()
            bottom_up = detector.backbone(images)
            costs[key] = {
                "parameters": _millions(detector),
                "pyramid_parameters": _millions(detector.pyramid),
                "gmacs": _gmacs(lambda: _dense(task, batch)),  # noqa: B023
                "pyramid_gmacs": _gmacs(lambda: detector.pyramid(bottom_up)),  # noqa: B023
                "anchors": _anchors(task, batch),
            }
        for name, run in (("ms", _dense), ("pyramid_ms", _pyramid)):
            times: dict[str, list[float]] = {key: [] for key in tasks}
            for _ in range(ROUNDS):
                for key, task in tasks.items():
                    times[key].append(run(task, batch))
            for key, values in times.items():
                costs[key][name] = statistics.median(values)
    return costs


def _dense(task: Task, batch: ImageBatch) -> float:
    began = time.perf_counter()
    features = task.detector.features(batch.images)
    if isinstance(rpn := getattr(task.detector, "rpn", None), RPNHead):
        rpn(features)
    return 1000 * (time.perf_counter() - began)


def _pyramid(task: Task, batch: ImageBatch) -> float:
    """The pyramid alone on the maps of one backbone run; of an image pyramid that is the projection of one scale."""
    bottom_up = task.detector.backbone(batch.images)
    began = time.perf_counter()
    task.detector.pyramid(bottom_up)
    return 1000 * (time.perf_counter() - began)


def _anchors(task: Task, batch: ImageBatch) -> float:
    rpn = getattr(task.detector, "rpn", None)
    if not isinstance(rpn, RPNHead):
        return 0.0
    made = rpn.anchors(task.detector.features(batch.images), padded_hw(batch.images))
    return sum(len(each) for each in made) / 1000


def _gmacs(run: Any) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    flops: int = counter.get_total_flops()
    return flops / 2e9


def _millions(module: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6
