"""How long to train: from the size of the data, or to fit into a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ConfigError

EPOCHS = 12
"""Passes over data that is large enough."""

LEAST_STEPS = 400
"""Fine-tuning a small data set needs so many, however few images there are."""

MOST_WARMUP_STEPS = 200

EVALUATIONS = 12
"""About so many in a run, fewer where they would cost too much."""

EVALUATION_SHARE = 0.15
"""The most of a run's time that evaluations may take, but for the one at its end."""

EVALUATED_IMAGE = 1 / 3
"""What evaluating an image costs, where training on one costs 1: no backward pass, but a larger image."""

TIME_MARGIN = 0.9
"""Share of a given time that is planned for: steps differ, and checkpoints and pictures are written."""

FEWEST_STEPS_IN_A_TIME = 10


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long a training is.

    Attributes:
        steps: of the optimiser; the last epoch may be cut short.
        warmup_steps: of them, with a rising learning rate.
        evaluate_every: epochs between evaluations; the end is always evaluated.
    """

    steps: int
    warmup_steps: int
    evaluate_every: int

    def evaluations(self, steps_per_epoch: int) -> int:
        """How many there are in the whole run."""
        return -(-self.steps // (steps_per_epoch * self.evaluate_every))


def plan_length(
    images: int,
    batch_size: int,
    *,
    val_images: int = 0,
    epochs: int | None = None,
    steps: int | None = None,
    warmup_steps: int | None = None,
    evaluate_every: int | None = None,
) -> Length:
    """A length that fits the data; what is given stays as it is.

    Large data is passed over `EPOCHS` times; small data as often as makes `LEAST_STEPS`. For the warm-up see
    `default_warmup`.

    Args:
        images: to train on.
        batch_size: images a step.
        val_images: images of an evaluation; the more they are, the fewer evaluations are planned.
        epochs: passes over the data.
        steps: of the optimiser, instead of epochs.
        warmup_steps, evaluate_every: see `Length`.
    """
    per_epoch = steps_per_epoch(images, batch_size)
    if steps is None:
        steps = per_epoch * (max(EPOCHS, -(-LEAST_STEPS // per_epoch)) if epochs is None else epochs)
    if warmup_steps is None:
        warmup_steps = default_warmup(steps)
    if evaluate_every is None:
        affordable = EVALUATION_SHARE * steps * batch_size / max(1.0, EVALUATED_IMAGE * val_images)
        evaluate_every = _every(steps, per_epoch, min(EVALUATIONS, affordable))
    return Length(steps=steps, warmup_steps=warmup_steps, evaluate_every=evaluate_every)


def plan_for_time(
    seconds: float,
    *,
    step_seconds: float,
    evaluation_seconds: float,
    steps_per_epoch: int,
    evaluate_every: int | None = None,
) -> tuple[int, int]:
    """The most steps that, with their evaluations, end within a time.

    Args:
        seconds: for all.
        step_seconds, evaluation_seconds: of one step and one evaluation, as measured.
        steps_per_epoch: of the data.
        evaluate_every: see `Length`; by default as often as costs little.
    Returns:
        `steps` and `evaluate_every`, see `Length`.
    Raises:
        ConfigError: so little time that it is no training.
    """
    usable = TIME_MARGIN * seconds
    if evaluate_every is None:
        affordable = EVALUATION_SHARE * usable / max(evaluation_seconds, 1e-9)
        evaluations = max(1, min(EVALUATIONS, int(affordable)))
        steps = int((usable - evaluations * evaluation_seconds) / step_seconds)
        every = _every(steps, steps_per_epoch, evaluations)
    else:
        round_seconds = evaluate_every * steps_per_epoch * step_seconds + evaluation_seconds
        rounds = int(usable / round_seconds)
        rest = max(0.0, usable - rounds * round_seconds - evaluation_seconds)
        steps, every = rounds * evaluate_every * steps_per_epoch + int(rest / step_seconds), evaluate_every
    if steps < FEWEST_STEPS_IN_A_TIME:
        needed = (FEWEST_STEPS_IN_A_TIME * step_seconds + evaluation_seconds) / TIME_MARGIN
        raise ConfigError(
            f"too little time: {max(0.0, seconds) / 60:.1f} minutes are left for training, a step takes "
            f"{step_seconds:.1f} s and an evaluation {evaluation_seconds:.1f} s: give minutes={math.ceil(needed / 60)} "
            "or more, beyond the time that reading the data takes"
        )
    return steps, every


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Whole batches in one pass; data smaller than a batch is one."""
    return max(1, images // batch_size)


def default_warmup(steps: int) -> int:
    """A tenth of the steps, and `MOST_WARMUP_STEPS` at most."""
    return min(MOST_WARMUP_STEPS, -(-steps // 10))


def ema_decay(steps: int) -> float:
    """A decay whose average reaches back over a quarter of a run."""
    return min(0.9998, max(0.0, 1 - 4 / steps))


def _every(steps: int, per_epoch: int, evaluations: float) -> int:
    """Epochs between evaluations so that there are no more than `evaluations`, and one at least."""
    return math.ceil(-(-steps // per_epoch) / max(1, int(evaluations)))
