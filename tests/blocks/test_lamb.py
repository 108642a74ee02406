"""LAMB by hand, and taken up again."""

import copy

import pytest
import torch
from torch import Tensor, nn

from methods.blocks.lamb import Lamb


def by_hand(w: Tensor, gradients: list[Tensor], lr: float) -> Tensor:
    mean, squares = torch.zeros_like(w), torch.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        mean, squares = 0.9 * mean + 0.1 * g, 0.999 * squares + 0.001 * g * g
        u = (mean / (1 - 0.9**t)) / ((squares / (1 - 0.999**t)).sqrt() + 1e-6)
        trust = w.norm() / u.norm() if w.norm() > 0 and u.norm() > 0 else 1.0
        w = w - lr * trust * u
    return w


@pytest.mark.parametrize("zero", [False, True])
def test_steps_are_those_of_the_paper(zero: bool) -> None:
    """Each tensor is scaled by itself; one that is 0 takes the step of Adam; no gradient is no step."""
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(n, dtype=torch.float64, generator=generator) for n in (3, 5)]
    starts[1] = 0 * starts[1] if zero else starts[1]
    gradients = [
        [torch.randn(len(w), dtype=torch.float64, generator=generator) for _ in "1234"] for w in starts
    ]
    weights, frozen = [nn.Parameter(w.clone()) for w in starts], nn.Parameter(torch.ones(2))
    optimiser = Lamb([*weights, frozen], lr=0.03)
    for t in range(4):
        for w, series in zip(weights, gradients, strict=True):
            w.grad = series[t]
        if t == 2:  # another optimiser goes on from what was kept
            kept = copy.deepcopy(optimiser.state_dict())
            optimiser = Lamb([*weights, frozen], lr=9.0)
            optimiser.load_state_dict(kept)
        optimiser.step()
    for w, start, series in zip(weights, starts, gradients, strict=True):
        torch.testing.assert_close(w.detach(), by_hand(start, series, 0.03), rtol=1e-12, atol=0)
    assert frozen.tolist() == [1, 1]


def test_a_gradient_of_zero_moves_nothing() -> None:
    w = nn.Parameter(torch.ones(3))
    w.grad = torch.zeros(3)
    Lamb([w], lr=0.1).step()
    assert w.tolist() == [1, 1, 1]
