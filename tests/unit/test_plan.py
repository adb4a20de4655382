"""How long a training is, from the size of the data or a time."""

from __future__ import annotations

import pytest

from fpnkit.errors import ConfigError
from fpnkit.training.plan import (
    EVALUATION_SHARE,
    TIME_MARGIN,
    ema_decay,
    plan_for_time,
    plan_length,
    steps_per_epoch,
)

BATCH = 8


@pytest.mark.parametrize(
    ("images", "steps", "epochs", "warmup"),
    [(20, 400, 200, 40), (200, 400, 16, 40), (5_000, 7_500, 12, 200), (5, 400, 400, 40)],
)
def test_length_fits_the_data(images: int, steps: int, epochs: int, warmup: int) -> None:
    length = plan_length(images, BATCH, val_images=images // 4)
    assert (length.steps, length.warmup_steps) == (steps, warmup)
    assert length.steps == epochs * steps_per_epoch(images, BATCH)
    assert 8 <= length.evaluations(steps_per_epoch(images, BATCH)) <= 12


def test_a_large_validation_set_is_evaluated_less_often() -> None:
    length = plan_length(20, BATCH, val_images=1_000)
    assert length.evaluations(steps_per_epoch(20, BATCH)) == 1
    length = plan_length(200, BATCH, val_images=1_000)
    evaluated = length.evaluations(25) * 1_000 / 3  # an evaluated image costs a third of one that is trained on
    assert evaluated <= EVALUATION_SHARE * 400 * BATCH


def test_what_is_given_stays() -> None:
    length = plan_length(200, BATCH, epochs=3, warmup_steps=7, evaluate_every=2)
    assert (length.steps, length.warmup_steps, length.evaluate_every) == (75, 7, 2)
    assert length.evaluations(25) == 2
    assert plan_length(200, BATCH, steps=30, epochs=3).steps == 30
    assert plan_length(200, BATCH, steps=30).warmup_steps == 3


@pytest.mark.parametrize("minutes", [1, 5, 60, 600])
@pytest.mark.parametrize("step_seconds", [0.02, 2.0])
@pytest.mark.parametrize("evaluation_seconds", [0.1, 20.0])
@pytest.mark.parametrize("evaluate_every", [None, 1, 40])
def test_a_training_ends_within_its_time(
    minutes: float, step_seconds: float, evaluation_seconds: float, evaluate_every: int | None
) -> None:
    costs = {"step_seconds": step_seconds, "evaluation_seconds": evaluation_seconds, "steps_per_epoch": 25}
    if minutes == 1 and evaluation_seconds == 20 and step_seconds == 2 and evaluate_every == 1:
        return
    steps, every = plan_for_time(60 * minutes, evaluate_every=evaluate_every, **costs)
    evaluations = -(-steps // (25 * every))
    taken = steps * step_seconds + evaluations * evaluation_seconds
    assert taken <= TIME_MARGIN * 60 * minutes + 1e-6
    one_more = 25 * every * step_seconds + evaluation_seconds + step_seconds
    assert taken + one_more > TIME_MARGIN * 60 * minutes or evaluate_every is None
    if evaluate_every is None:
        assert evaluations <= 12
        assert evaluations == 1 or evaluations * evaluation_seconds <= EVALUATION_SHARE * 60 * minutes
        assert taken > 0.6 * TIME_MARGIN * 60 * minutes


def test_too_little_time_is_refused_and_enough_is_named() -> None:
    costs = {"step_seconds": 2.0, "evaluation_seconds": 30.0, "steps_per_epoch": 25}
    with pytest.raises(ConfigError, match=r"0\.5 minutes are left .* step takes 2\.0 s .* give minutes=1 or more"):
        plan_for_time(30, **costs)
    assert plan_for_time(60, **costs)[0] >= 10


def test_the_average_of_weights_fits_the_length() -> None:
    assert ema_decay(4) == 0
    assert ema_decay(400) == pytest.approx(0.99)
    assert ema_decay(10_000_000) == 0.9998
