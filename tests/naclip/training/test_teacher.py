"""The moving average."""

import pytest
import torch
from torch import nn

from naclip.training.teacher import follow
from tests.naclip.training.golden import golden


def linear(weight: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data.copy_(weight)
    return layer


def test_golden():
    teacher, student = linear(golden()['ema/teacher']), linear(golden()['ema/student'])
    for momentum, key in ((0.999, 'ema/after_0.999'), (0.9, 'ema/then_0.9')):
        follow(teacher, student, momentum)
        torch.testing.assert_close(teacher.weight.data, golden()[key], rtol=0, atol=1e-6)


def test_ten_thousand_small_steps_arrive():
    """At a rate of 2e-6 each step is far below half precision's spacing; float32 keeps the movement."""
    teacher, student = linear(torch.full((1, 1), 0.5)), linear(torch.full((1, 1), 0.5))
    exact = 0.5
    for step in range(2000):
        student.weight.data += 2e-6
        exact += 1e-3 * (0.5 + 2e-6 * (step + 1) - exact)
        follow(teacher, student)
    assert teacher.weight.item() - 0.5 == pytest.approx(exact - 0.5, rel=3e-2)


def test_half_precision_is_refused():
    with pytest.raises(ValueError, match='expected float32'):
        follow(linear(torch.ones(1, 1)).half(), linear(torch.ones(1, 1)).half())
