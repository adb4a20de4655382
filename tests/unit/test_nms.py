"""Suppression and top-k at fixed sizes."""

from __future__ import annotations

import pytest
import torch

from fpnkit.ops import nms
from fpnkit.ops.nms import nms_keep, suppressed_in_rows, top_k

INF = float("inf")
A, A_SHIFTED, FAR = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0], [50.0, 50.0, 60.0, 60.0]


def keep(boxes, scores, threshold=0.5) -> list[list[bool]]:
    """By what CPUs and by what GPUs run."""
    kept = nms_keep(torch.tensor(boxes), torch.tensor(scores), threshold).tolist()
    assert suppressed_in_rows(torch.tensor(boxes), torch.tensor(scores), threshold).tolist() == kept
    return kept


def test_the_better_of_two_overlapping_boxes_stays():
    assert keep([[A, A_SHIFTED, FAR]], [[0.9, 0.8, 0.1]]) == [[True, False, True]]
    assert keep([[A, A_SHIFTED, FAR]], [[0.8, 0.9, 0.1]]) == [[False, True, True]]


def test_only_an_iou_above_the_threshold_suppresses():
    half = [0.0, 0.0, 10.0, 5.0]
    assert keep([[A, half]], [[0.9, 0.8]], threshold=0.5) == [[True, True]]
    assert keep([[A, half]], [[0.9, 0.8]], threshold=0.49) == [[True, False]]


def test_a_suppressed_box_does_not_suppress():
    row = [[0.0, 0.0, 10.0, 10.0], [4.0, 0.0, 14.0, 10.0], [8.0, 0.0, 18.0, 10.0]]
    assert keep([row], [[0.9, 0.8, 0.7]], threshold=0.3) == [[True, False, True]]


def test_rows_stay_apart_at_negative_coordinates():
    boxes = [[[-100.0, -100.0, 50.0, 50.0]], [[-100.0, -100.0, 0.0, 0.0]]]
    assert keep(boxes, [[0.9], [0.8]], 0.1) == [[True], [True]]
    assert keep([[boxes[0][0], boxes[1][0]]], [[0.9, 0.8]], 0.1) == [[True, False]]


def test_rows_do_not_touch_one_another():
    assert keep([[A, A_SHIFTED], [A_SHIFTED, FAR]], [[0.9, 0.8], [0.7, 0.6]]) == [[True, False], [True, True]]


@pytest.mark.parametrize("junk", [float("nan"), INF, -INF, -1e6])
def test_padding_may_hold_anything(junk):
    assert keep([[A, FAR], [[junk] * 4, [junk] * 4]], [[0.9, 0.8], [-INF, -INF]]) == [[True, True], [False, False]]
    assert keep([[A, A_SHIFTED, [junk] * 4]], [[0.9, 0.8, -INF]]) == [[True, False, False]]


@pytest.mark.parametrize("run", [nms_keep, suppressed_in_rows])
@pytest.mark.parametrize(("rows", "columns"), [(0, 5), (2, 0), (0, 0)])
def test_nothing_to_suppress(rows, columns, run):
    assert run(torch.zeros(rows, columns, 4), torch.zeros(rows, columns), 0.5).shape == (rows, columns)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("pairs", [1, nms.PAIRS])
def test_all_rows_at_once_keep_what_torchvision_keeps(threshold, pairs, monkeypatch):
    monkeypatch.setattr(nms, "PAIRS", pairs)
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(12, 200, 2, generator=generator) * 100 - 50
    boxes = torch.cat([corners, corners + torch.rand(12, 200, 2, generator=generator) * 60], dim=2)
    scores = torch.rand(12, 200, generator=generator)
    scores[3] = -INF
    scores[4, ::3] = -INF
    assert torch.equal(suppressed_in_rows(boxes, scores, threshold), nms_keep(boxes, scores, threshold))


def test_nms_declares_its_output_to_compilers():
    boxes = torch.tensor([[A, A_SHIFTED, FAR]])
    inputs = (boxes, torch.rand(1, 3), 0.5)
    torch.library.opcheck(nms_keep, inputs, test_utils=("test_schema", "test_faketensor"))


def test_top_k_of_more_than_k():
    best, index, valid = top_k(torch.tensor([[0.1, 0.9, 0.5], [3.0, 1.0, 2.0]]), 2)
    torch.testing.assert_close(best, torch.tensor([[0.9, 0.5], [3.0, 2.0]]))
    assert index.tolist() == [[1, 2], [0, 2]]
    assert valid.all()


def test_top_k_of_fewer_than_k_is_padded():
    best, index, valid = top_k(torch.tensor([[0.1, 0.9]]), 4)
    torch.testing.assert_close(best, torch.tensor([[0.9, 0.1, -INF, -INF]]))
    assert index[0, :2].tolist() == [1, 0]
    assert ((index >= 0) & (index < 2)).all()
    assert valid.tolist() == [[True, True, False, False]]


def test_top_k_calls_masked_scores_invalid():
    _, index, valid = top_k(torch.tensor([[-INF, 0.2, -INF]]), 3)
    assert valid.tolist() == [[True, False, False]]
    assert index[0, 0] == 1
    assert ((index >= 0) & (index < 3)).all()


def test_top_k_of_no_rows():
    assert [each.shape for each in top_k(torch.zeros(0, 5), 3)] == [(0, 3)] * 3
