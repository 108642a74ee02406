"""Kernel regression against the solution of its problem in float64, and its gradients."""

from typing import Any

import pytest
import torch
from helpers.method import problem_for, small
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.core import random
from bench.core.networks.architecture import parse_architecture
from methods.blocks.kernel_regression import kernel_regression, label_margin, predicted


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=random.generator(seed, "kernel"))


@given(
    n=st.integers(1, 6),
    d=st.integers(1, 8),
    ridge=st.sampled_from([1e-6, 1e-3, 1.0]),
    seed=st.integers(0, 99),
)
def test_predictions_are_those_of_the_best_linear_map(n: int, d: int, ridge: float, seed: int) -> None:
    """The minimum of |f_p W - Y|^2 + lambda |W|^2 over W, whose normal equations are of size D and not n."""
    synthetic, real, values = (
        noise(n, d, seed=seed),
        noise(4, d, seed=seed + 100),
        noise(n, 3, seed=seed + 200),
    )
    lam = ridge * sum(float(row @ row) for row in synthetic) / n
    w = torch.linalg.solve(
        synthetic.T @ synthetic + lam * torch.eye(d, dtype=torch.float64), synthetic.T @ values
    )
    torch.testing.assert_close(predicted(real, synthetic, values, ridge), real @ w, rtol=1e-6, atol=1e-6)


def direct(real: Tensor, classes: Tensor, synthetic: Tensor, soft: Tensor, ridge: float) -> float:
    """Entry by entry, from the explicit inverse."""
    n, k = soft.shape
    scale = (k / 10) ** 0.5
    kernel = [[float(a @ b) for b in synthetic] for a in synthetic]
    trace = sum(kernel[i][i] for i in range(n))
    for i in range(n):
        kernel[i][i] += ridge * trace / n
    inverse = torch.tensor(kernel, dtype=torch.float64).inverse()
    y = [[(float(soft[i, c]) - 1 / k) / scale for c in range(k)] for i in range(n)]
    error = 0.0
    for x, label in zip(real, classes.tolist(), strict=True):
        weights = [sum(float(x @ synthetic[j]) * float(inverse[j, i]) for j in range(n)) for i in range(n)]
        for c in range(k):
            answer = sum(weights[i] * y[i][c] for i in range(n))
            error += (answer - ((c == label) - 1 / k) / scale) ** 2 / 2
    margins = [min(sorted(row)[-1] - sorted(row)[-2], 1 / k) for row in y]
    return error / len(real) - sum(margins) / n


@pytest.mark.parametrize("ridge", [1e-6, 0.1])
def test_the_loss_is_the_direct_formula(ridge: float) -> None:
    real, synthetic, soft = noise(5, 7), noise(4, 7, seed=1), noise(4, 3, seed=2).softmax(1)
    classes = torch.tensor([0, 1, 2, 1, 1])
    found = kernel_regression(real, classes, synthetic, soft, 3, ridge=ridge)
    assert float(found) == pytest.approx(direct(real, classes, synthetic, soft, ridge), rel=1e-9)


def test_classes_are_labels_of_probability_one() -> None:
    real, synthetic, classes = noise(6, 7), noise(3, 7, seed=1), torch.arange(3)
    hard = kernel_regression(real, classes.repeat(2), synthetic, classes, 3)
    soft = kernel_regression(real, classes.repeat(2), synthetic, torch.eye(3, dtype=torch.float64), 3)
    assert torch.equal(hard, soft)


def test_real_images_that_are_in_the_set_are_predicted_exactly() -> None:
    synthetic, classes = noise(3, 9), torch.arange(3)
    loss = kernel_regression(synthetic, classes, synthetic, classes, 3, ridge=1e-12)
    assert float(loss) == pytest.approx(-1 / 3, abs=1e-12)


def test_the_margin_stops_at_one_over_k() -> None:
    values = torch.tensor([[0.9, -0.1, -0.8], [0.2, 0.1, -0.3]], dtype=torch.float64).requires_grad_()
    margin = label_margin(values)
    assert float(margin.detach()) == pytest.approx(-(1 / 3 + 0.1) / 2)
    (gradient,) = torch.autograd.grad(margin, values)
    assert gradient.tolist() == [[0, 0, 0], [-0.5, 0.5, 0]]


@pytest.mark.parametrize("ridge", [1e-6, 1e-2])
def test_gradients_of_features_and_labels_against_finite_differences(ridge: float) -> None:
    real, classes = noise(5, 6), torch.tensor([0, 1, 2, 1, 0])
    synthetic, logits = noise(3, 6, seed=1).requires_grad_(), noise(3, 3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, y: kernel_regression(real, classes, x, y.softmax(1), 3, ridge=ridge), (synthetic, logits)
    )


@pytest.mark.parametrize("name", ["convnet-d2-w4", "convnet-d2-w4-batch", "mlp-w8"])
def test_the_gradient_of_the_pixels_against_finite_differences(name: str) -> None:
    net = parse_architecture(name).build((1, 8, 8), 3, random.generator(1)).double().train()
    real, classes = net.embed(noise(6, 1, 8, 8)).detach(), torch.arange(3).repeat(2)
    images = noise(3, 1, 8, 8, seed=1).requires_grad_()

    def loss(x: Tensor) -> Tensor:
        both = torch.cat([x, x.flip(-1)])
        return kernel_regression(real, classes, net.embed(both), torch.arange(3).repeat(2), 3, ridge=1e-3)

    (gradient,) = torch.autograd.grad(loss(images), images)
    direction, h = noise(3, 1, 8, 8, seed=3), 1e-6
    with torch.no_grad():
        change = float(loss(images + h * direction) - loss(images - h * direction)) / (2 * h)
    assert change == pytest.approx(float((gradient * direction).sum()), rel=1e-5)


@pytest.mark.parametrize("case", ["twins", "dead"])
def test_alike_images_and_dead_features_leave_everything_finite(case: str) -> None:
    one = noise(1, 5, seed=1).float() if case == "twins" else torch.zeros(1, 5)
    synthetic = one.repeat(3, 1).requires_grad_()
    loss = kernel_regression(noise(4, 5).float(), torch.tensor([0, 1, 2, 0]), synthetic, torch.arange(3), 3)
    loss.backward()
    assert loss.isfinite()
    assert synthetic.grad is not None
    assert synthetic.grad.isfinite().all()


def test_the_step_of_the_method_is_that_of_its_objective() -> None:
    """One step of LAMB moves the images by the first rate times their norm."""
    method: Any = small("frepo", steps=1, lr=0.01, flip=False, batch_real=30)
    problem = problem_for(method)
    start = small("frepo", steps=1, lr=1e-30, flip=False, batch_real=30).distill(problem)
    moved = method.distill(problem).images.detach() - start.images.detach()
    assert float(moved.norm()) == pytest.approx(0.01 * float(start.images.detach().norm()), rel=1e-4)
