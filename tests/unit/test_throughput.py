"""The batches of a folder follow what is measured: here, from known times."""

import os
import threading
from types import SimpleNamespace

import pytest

from fpnkit.inference.throughput import BATCHES, BatchPlan, choose_batch_plan, fastest_plan

STREAMS = (1, 2, 4)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param(lambda plan: 0.03 / plan.batch, BatchPlan(1, 16), id="large batches where a pass is what costs"),
        pytest.param(lambda plan: 0.01, BatchPlan(1, 1), id="single images where a batch saves nothing"),
        pytest.param(lambda plan: 0.01 / plan.batch**0.03, BatchPlan(1, 1), id="single images where a batch saves 4 %"),
        pytest.param(lambda plan: 0.02 / plan.streams, BatchPlan(4, 1), id="streams where passes overlap"),
        pytest.param(
            lambda plan: 0.02 + 0.01 * plan.streams, BatchPlan(1, 1), id="one stream where they hinder each other"
        ),
        pytest.param(
            lambda plan: 0.02 / plan.streams / min(plan.batch, 4), BatchPlan(4, 4), id="both, as long as they pay"
        ),
    ],
)
def test_the_plan_with_the_least_time_an_image(seconds, expected):
    assert fastest_plan(STREAMS, BATCHES, seconds) == expected


def test_no_batch_is_tried_after_one_that_does_not_pay():
    asked = []
    fastest_plan((1,), BATCHES, lambda plan: asked.append(plan.batch) or 0.01)
    assert asked == [1, 4]


def predictor(name, batch=lambda pictures: None):
    return SimpleNamespace(engine=SimpleNamespace(name=name), batch=batch)


def test_pytorch_is_given_one_stream():
    asked = []
    choose_batch_plan(lambda streams: asked.append(streams) or predictor("torch"), None, batch=1)
    assert asked == [1]


def test_an_exported_graph_is_tried_with_one_stream_to_one_a_core_and_then_with_larger_batches():
    asked, sizes = [], set()

    def open_with(streams):
        asked.append(streams)
        return predictor("openvino", lambda pictures: sizes.add(len(pictures)))

    choose_batch_plan(open_with, None)
    assert {1, os.cpu_count() or 1} <= set(asked)
    assert {1, 4} <= sizes


def test_what_is_given_is_measured_as_given():
    """Two streams pass the barrier only if two passes run at the same time."""
    meeting, sizes = threading.Barrier(2, timeout=30), set()

    def batch(pictures):
        meeting.wait()
        sizes.add(len(pictures))

    _, plan = choose_batch_plan(lambda streams: predictor("openvino", batch), None, streams=2, batch=4)
    assert (plan, sizes) == (BatchPlan(2, 4), {4})
