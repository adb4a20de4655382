"""Loss terms by hand, and what masks hide."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from fpnkit.ops.losses import class_loss, masked_mean, objectness_loss, smooth_l1


def test_smooth_l1_by_hand():
    predicted, wanted = torch.tensor([[0.0, 0.0, 0.0, 1.0]]), torch.tensor([[0.5, -2.0, 1.0, 1.0]])
    assert smooth_l1(predicted, wanted, beta=1.0).tolist() == [0.125 + 1.5 + 0.5 + 0.0]


def test_smooth_l1_with_beta_0_is_l1():
    predicted = torch.tensor([[0.0, 0.0, 0.0, 0.0]])
    assert smooth_l1(predicted, torch.tensor([[0.5, -2.0, 1.0, 0.0]]), beta=0.0).tolist() == [3.5]


@pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0])
def test_smooth_l1_matches_torch(beta):
    predicted, wanted = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    expected = F.smooth_l1_loss(predicted, wanted, beta=beta, reduction="none").sum(-1)
    torch.testing.assert_close(smooth_l1(predicted, wanted, beta=beta), expected)


def test_masked_mean_divides_each_image_by_its_count():
    values = torch.tensor([[1.0, 2.0, 4.0], [6.0, 8.0, 9.0]])
    mask = torch.tensor([[True, False, True], [True, False, False]])
    assert masked_mean(values, mask, torch.tensor([10, 3])).item() == pytest.approx((0.5 + 2) / 2)


def test_no_samples_give_zero_with_a_zero_gradient():
    values = torch.ones(1, 3, requires_grad=True)
    loss = masked_mean(values, torch.zeros(1, 3, dtype=torch.bool), torch.tensor([0]))
    loss.backward()
    assert loss.item() == 0
    assert values.grad.tolist() == [[0, 0, 0]]


def test_masked_out_values_may_be_nan():
    values = torch.tensor([[1.0, float("nan"), float("inf")]])
    assert masked_mean(values, torch.tensor([[True, False, False]]), torch.tensor([1])).item() == 1


def test_objectness_loss_by_hand():
    logits = torch.tensor([0.0, 0.0, math.log(3), math.log(3)])
    positive = torch.tensor([True, False, True, False])
    wanted = torch.tensor([math.log(2), math.log(2), math.log(4 / 3), math.log(4)])
    torch.testing.assert_close(objectness_loss(logits, positive), wanted)


def test_class_loss_by_hand():
    logits = torch.tensor([[[0.0, 0.0, 0.0], [math.log(2), 0.0, 0.0]]])
    wanted = torch.tensor([[math.log(3), math.log(2)]])
    torch.testing.assert_close(class_loss(logits, torch.tensor([[2, 0]])), wanted)


def test_losses_of_nothing():
    assert smooth_l1(torch.zeros(2, 0, 4), torch.zeros(2, 0, 4), beta=1.0).shape == (2, 0)
    assert objectness_loss(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.bool)).shape == (0, 3)
    assert class_loss(torch.zeros(0, 3, 5), torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 3)
