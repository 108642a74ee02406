"""NCFM's objective against a direct formula in float64, its gradient against finite differences."""

import cmath
import math

import pytest
import torch
from helpers.parameterise import noise
from torch import Tensor

from bench.core import random
from methods.blocks import characteristic_functions as module
from methods.blocks.characteristic_functions import characteristic_function

CLASSES, DIM, FREQUENCIES = 3, 5, 7


def loss(real: Tensor, synthetic: Tensor, seed: int = 0, frequencies: int = FREQUENCIES) -> Tensor:
    draws = random.generator(seed, "frequencies")
    return characteristic_function(real, synthetic, CLASSES, draws, frequencies)


def direct(real: Tensor, synthetic: Tensor) -> float:
    """Class by class, frequency by frequency, image by image: amplitudes and phases as in the paper."""
    draws = random.generator(0, "frequencies")
    frequencies = torch.randn(FREQUENCIES, DIM, generator=draws, dtype=torch.float64).tolist()
    total = 0.0
    for c in range(CLASSES):
        for t in frequencies:
            values = []
            for features in (real, synthetic):
                per = len(features) // CLASSES
                rows = features[c * per : (c + 1) * per].tolist()
                waves = [
                    cmath.exp(1j * sum(a * b for a, b in zip(t, row, strict=True)) / math.hypot(*row))
                    for row in rows
                ]
                values.append(sum(waves) / per)
            a, b = values
            amplitude = (abs(a) - abs(b)) ** 2
            phase = 2 * (abs(a) * abs(b) - a.real * b.real - a.imag * b.imag)
            total += 300 * math.sqrt(0.5 * amplitude + 0.5 * phase) / FREQUENCIES
    return total


@pytest.mark.parametrize("piece", [1, 3, 512])
def test_the_objective_is_the_direct_formula_of_amplitude_and_phase(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many frequencies are taken at a time."""
    monkeypatch.setattr(module, "PIECE", piece)
    real, synthetic = noise(12, DIM), noise(6, DIM, seed=1)
    assert float(loss(real, synthetic)) == pytest.approx(direct(real, synthetic), rel=1e-12)


def test_its_gradient_against_finite_differences() -> None:
    real, synthetic, h = noise(12, DIM), noise(6, DIM, seed=1).requires_grad_(), 1e-6
    direction = noise(6, DIM, seed=2)
    (gradient,) = torch.autograd.grad(loss(real, synthetic), synthetic)
    with torch.no_grad():
        change = float(loss(real, synthetic + h * direction) - loss(real, synthetic - h * direction))
    assert change / (2 * h) == pytest.approx(float((gradient * direction).sum()), rel=1e-6)


def test_equal_distributions_have_no_distance_and_a_gradient_of_zero() -> None:
    """Repeated, in another order, and of another length: a distribution of directions alone is compared."""
    real = noise(12, DIM).unflatten(0, (CLASSES, 4))
    same = (2 * torch.cat([real.flip(1), real], dim=1)).flatten(0, 1).requires_grad_()
    distance = loss(real.flatten(0, 1), same)
    assert 0 <= distance <= 1e-3
    distance.backward()
    assert same.grad is not None
    assert torch.equal(same.grad, torch.zeros_like(same))


def test_other_moments_than_the_mean_are_seen() -> None:
    """Two directions whose mean is zero are told from two others: distribution matching could not."""
    one, other = (torch.eye(DIM, dtype=torch.float64)[[i, i]] * torch.tensor([[1.0], [-1.0]]) for i in (0, 1))
    assert float(loss(one.repeat(CLASSES, 1), other.repeat(CLASSES, 1))) > 10


def test_the_frequencies_are_those_of_the_generator() -> None:
    real, synthetic = noise(12, DIM), noise(6, DIM, seed=1)
    assert loss(real, synthetic, seed=1) != loss(real, synthetic)
    many = [float(loss(real, synthetic, seed, frequencies=4096)) for seed in range(2)]
    assert many[0] == pytest.approx(many[1], rel=0.05)
