"""The way through a folder follows what is measured: here, predictors that take a known time."""

import os
import threading
import time
from types import SimpleNamespace

import pytest

from fpnkit.engine.throughput import Way, best_way

BUSY = threading.Lock()


def predictor(name, *, each_pass=0.0, each_image=0.0, alone=False):
    """Takes so many seconds, and lets nobody else compute meanwhile when `alone`."""

    def batch(pictures):
        seconds = each_pass + each_image * len(pictures)
        if alone:
            with BUSY:
                time.sleep(seconds)
        else:
            time.sleep(seconds)

    return SimpleNamespace(engine=SimpleNamespace(name=name), batch=batch)


def test_large_batches_where_a_pass_is_what_costs():
    _, way = best_way(lambda streams: predictor("torch", each_pass=0.03), None)
    assert way == Way(1, 16)


def test_single_images_where_a_batch_saves_nothing():
    _, way = best_way(lambda streams: predictor("torch", each_image=0.01), None)
    assert way == Way(1, 1)


def test_streams_where_passes_overlap():
    cores = os.cpu_count() or 1
    if cores < 2:
        pytest.skip("one core has one stream")
    _, way = best_way(lambda streams: predictor("openvino", each_image=0.02), None, batch=1)
    assert way == Way(cores, 1)


def test_pytorch_is_given_one_stream():
    asked = []
    best_way(lambda streams: asked.append(streams) or predictor("torch"), None, batch=1)
    assert asked == [1]


def test_what_is_given_is_taken():
    _, way = best_way(lambda streams: predictor("openvino", each_pass=0.01, alone=True), None, streams=2, batch=4)
    assert way == Way(2, 4)
