"""Coresets with weights: gradients as factors, facility location and matching pursuit against slow loops."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.method import problem_for, small
from helpers.parameterise import noise
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from methods.blocks.weighted import LEAST_WEIGHT, LastGradients, relative
from methods.facility_location import distances, facility_location
from methods.grad_match import matching_pursuit, nonnegative

METHODS = ("facility_location", "grad_match")


def gradients(n: int, seed: int = 0, k: int = 3, d: int = 4) -> LastGradients:
    return LastGradients.of(noise(n, k, seed=seed).softmax(1), noise(n, d, seed=seed + 100), label=1)


def formed(factors: LastGradients) -> Tensor:
    """The gradients themselves, [n, K(D+1)]."""
    return torch.einsum("nk,nd->nkd", factors.error, factors.inputs).flatten(1)


# --- gradients ----------------------------------------------------------------------------------------------


def test_the_factors_are_those_of_the_gradient_in_the_last_layer() -> None:
    layer, x = torch.nn.Linear(4, 3).double(), noise(5, 4)
    factors = LastGradients.of(layer(x).softmax(1).detach(), x, label=2)
    for image, own in zip(x, formed(factors).view(5, 3, 5), strict=True):
        loss = F.cross_entropy(layer(image[None]), torch.tensor([2]))
        weight, bias = torch.autograd.grad(loss, list(layer.parameters()))
        torch.testing.assert_close(own, torch.cat([weight, bias[:, None]], 1), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rows", [4, 1000])
def test_products_and_distances_are_those_of_the_gradients(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("methods.facility_location.ROWS", rows)
    factors = gradients(9)
    whole, some = formed(factors), torch.tensor([4, 0])
    torch.testing.assert_close(factors.products(some), whole @ whole[some].T, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(factors.products_with_mean(), whole @ whole.mean(0), rtol=1e-12, atol=1e-14)
    expected = (whole[:, None] - whole).norm(dim=2)
    torch.testing.assert_close(distances(factors), expected.float(), rtol=1e-6, atol=1e-6)


# --- facility location --------------------------------------------------------------------------------------


def covered(similarity: Tensor, chosen: Any) -> float:
    return float(similarity[list(chosen)].max(0).values.sum())


@given(n=st.integers(1, 40), seed=st.integers(0, 99), data=st.data())
def test_lazy_greedy_is_greedy(n: int, seed: int, data: st.DataObject) -> None:
    x, k = noise(n, 2, seed=seed), data.draw(st.integers(1, min(n, 6)))
    distance = torch.cdist(x, x)
    similarity = distance.max() - distance
    chosen = facility_location(similarity, k).tolist()
    assert len(set(chosen)) == k
    for m in range(k):
        left = [i for i in range(n) if i not in chosen[:m]]
        best = max(covered(similarity, [*chosen[:m], i]) for i in left)
        assert covered(similarity, chosen[: m + 1]) == pytest.approx(best, rel=1e-12, abs=1e-12)


def test_facility_location_by_hand() -> None:
    x = torch.tensor([0.0, 1.0, 2.0, 10.0, 11.0], dtype=torch.float64)
    similarity = 11 - (x[:, None] - x).abs()
    # 2 is the median; then 10 or 11 gain 8 + 8 or 7 + 9: the first
    assert facility_location(similarity, 2).tolist() == [2, 3]
    assert len(set(facility_location(torch.zeros(4, 4), 4).tolist())) == 4


def test_weights_are_the_sizes_of_the_clusters() -> None:
    error = torch.zeros(6, 3, dtype=torch.float64)
    error[:, 0] = torch.tensor([1.0, 1.01, 1.02, 1.03, 7.0, 7.01])
    factors = LastGradients(error, torch.ones(6, 1, dtype=torch.float64))
    chosen, weights = small("facility_location").choose(factors, 2)
    sizes = {int(i) < 4: float(w) for i, w in zip(chosen, weights, strict=True)}
    assert sizes == {True: 4.0, False: 2.0}


# --- matching pursuit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_weights_are_the_best_that_are_not_negative(seed: int) -> None:
    g, mean = noise(4, 6, seed=seed), noise(6, seed=seed + 50)
    found = nonnegative(g @ g.T, g @ mean, 0.5).numpy()

    def loss(w: Any) -> float:
        return float((torch.from_numpy(w) @ g - mean).square().sum() + 0.5 * (w**2).sum())

    best = minimize(loss, [0.1] * 4, bounds=[(0, None)] * 4, tol=1e-12).fun
    assert (found >= 0).all()
    assert loss(found) <= best + 1e-9


@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 3), (9, 9)])
def test_matching_pursuit_is_that_of_the_formed_gradients(n: int, k: int) -> None:
    factors = gradients(n)
    whole = formed(factors)
    mean, picked = whole.mean(0), []
    left = mean
    for _ in range(k):
        along = {i: float(whole[i] @ left) for i in range(n) if i not in picked}
        picked.append(max(along, key=lambda i: along[i]))
        g = whole[picked]
        weights = nonnegative(g @ g.T, g @ mean, 1.0)
        left = mean - weights @ g
    chosen, found = matching_pursuit(factors, k, 1.0)
    assert chosen.tolist() == picked
    torch.testing.assert_close(found, weights, rtol=1e-9, atol=1e-12)
    assert (found >= 0).all()


# --- whole methods ------------------------------------------------------------------------------------------


def test_weights_of_a_class_have_the_mean_one() -> None:
    assert relative(torch.tensor([3.0, 1.0])).tolist() == [1.5, 0.5]
    assert relative(torch.tensor([0.0, 0.0])).tolist() == [1.0, 1.0]
    assert relative(torch.tensor([4.0, 0.0])).tolist() == pytest.approx([2.0, LEAST_WEIGHT])


@pytest.mark.parametrize("name", METHODS)
def test_weights_are_stored_and_counted_unless_they_are_declined(name: str) -> None:
    method, plain = small(name), small(name, weighted=False)
    problem = problem_for(method, ipc=3)
    weighted, alike = method.distill(problem), plain.distill(problem)
    assert torch.equal(weighted.images, alike.images)
    assert weighted.n_stored == alike.n_stored + 9 == problem.budget + 9
    assert torch.equal(weighted.decode()[1].argmax(1), alike.decode()[1])
    sums = weighted.weights.view(3, 3).sum(1)
    torch.testing.assert_close(sums, torch.full((3,), 3.0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", METHODS)
def test_the_images_of_a_class_of_thousands_are_chosen_at_once(name: str) -> None:
    method, n = small(name), 5000
    chosen, weights = method.choose(gradients(n, d=64), 50)
    assert len(set(chosen.tolist())) == 50
    assert float(weights.min()) >= 0


@pytest.mark.parametrize("name", METHODS)
def test_identical_images_are_not_taken_twice(name: str) -> None:
    same = LastGradients(torch.ones(5, 3, dtype=torch.float64), torch.ones(5, 2, dtype=torch.float64))
    for k in range(1, 6):
        assert len(set(small(name).choose(same, k)[0].tolist())) == k
