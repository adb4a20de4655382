"""Suppression and top-k against slow references."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from fpnkit.ops.nms import nms_keep, top_k

INF = float("inf")


@st.composite
def nms_inputs(draw):
    """Boxes on whole pixels, so that every IoU is exact; scores without ties; padding of junk."""
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    whole = st.integers(-12, 12)
    side = st.integers(0, 12)
    boxes, scores = [], []
    for _ in range(rows):
        corners = draw(st.lists(st.tuples(whole, whole, side, side), min_size=columns, max_size=columns))
        boxes.append([[x, y, x + w, y + h] for x, y, w, h in corners])
        scores.append(draw(st.permutations(range(columns))))
    boxes, scores = torch.tensor(boxes).float(), torch.tensor(scores).float()
    padding = torch.tensor(draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns)))
    padding = padding.reshape(rows, columns) & draw(st.booleans())
    boxes[padding] = draw(st.sampled_from([0.0, 5.0, float("nan"), INF]))
    return boxes, scores.masked_fill(padding, -INF)


def slow_nms(boxes, scores, threshold: float) -> list[bool]:
    """Greedy suppression in one image, box by box."""
    keep = [False] * len(boxes)
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        better = [j for j in range(len(boxes)) if keep[j]]
        keep[i] = all(slow_iou(boxes[i], boxes[j]) <= threshold for j in better)
    return keep


def slow_iou(a, b) -> float:
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    overlap = across * down if across > 0 and down > 0 else 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    return overlap / union if union else 0.0


@given(nms_inputs(), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_nms_equals_a_slow_greedy_reference(inputs, threshold):
    boxes, scores = inputs
    found = nms_keep(boxes, scores, threshold)
    for row in range(len(boxes)):
        real = scores[row] > -INF
        values = (each[row][real].tolist() for each in (boxes, scores))
        assert found[row][real].tolist() == slow_nms(*values, threshold)
        assert not found[row][~real].any()


@given(nms_inputs())
def test_nms_of_a_batch_is_nms_of_each_image(inputs):
    boxes, scores = inputs
    real = scores > -INF
    alone = torch.cat([nms_keep(*(each[i : i + 1] for each in inputs), 0.5) for i in range(len(boxes))])
    assert torch.equal(nms_keep(boxes, scores, 0.5) & real, alone & real)


@given(nms_inputs())
def test_survivors_survive_again(inputs):
    boxes, scores = inputs
    once = nms_keep(boxes, scores, 0.5) & (scores > -INF)
    twice = nms_keep(boxes, scores.masked_fill(~once, -INF), 0.5) & once
    assert torch.equal(once, twice)


@given(st.lists(st.integers(-50, 50) | st.just(-INF), min_size=1, max_size=12), st.integers(1, 15))
def test_top_k_equals_sorting(values, k):
    scores = torch.tensor([values], dtype=torch.float32)
    best, index, valid = top_k(scores, k)
    real = sorted((value for value in values if value > -INF), reverse=True)[:k]
    assert best.shape == index.shape == valid.shape == (1, k)
    assert valid[0].tolist() == [i < len(real) for i in range(k)]
    assert best[valid].tolist() == real
    assert scores[0][index[valid]].tolist() == real
    assert len(set(index[valid].tolist())) == len(real)
    assert ((index >= 0) & (index < len(values))).all()
