"""NCFM: what its two losses do, and how its learning rate falls."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.method import losses, problem_for, small

from bench.core.errors import UserError
from methods import ncfm as module
from methods.blocks.interpolated import Interpolated


def ncfm(**values: Any) -> Any:
    return small("ncfm", **{"frequencies": 16, "augment": "none", "net_epochs": 30} | values)


def test_without_matching_the_trained_networks_learn_to_classify_the_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cross-entropy is of the trained networks, summed over classes."""
    monkeypatch.setattr(module, "characteristic_function", lambda real, found, *_: 0 * found.sum())
    method = ncfm(steps=40, lr=0.05, weight_decay=0.0, experts=1)
    problem = problem_for(method)
    distilled, noted = losses(method, problem)
    assert noted[-1] < 0.5 * noted[0]
    pool = Interpolated(problem, problem.rng("other"))
    pool.restart()
    with torch.no_grad():
        images, targets = distilled.decode()
        last = float(problem.n_classes * F.cross_entropy(pool.trained(images), targets))
    assert last == pytest.approx(noted[-1], rel=0.2)


def test_matching_alone_brings_the_distributions_closer() -> None:
    method = ncfm(steps=60, lr=0.02, calibration=0.0, frequencies=256, experts=1, batch_real=1000)
    _, noted = losses(method, problem_for(method))
    assert sum(noted[-10:]) < 0.9 * sum(noted[:10])


def test_the_rate_is_halved_on_a_plateau(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *args: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    monkeypatch.setattr(module, "characteristic_function", lambda real, found, *_: 0 * found.sum() + 1)
    method = ncfm(steps=7, lr=0.01, patience=2, calibration=0.0)
    method.distill(problem_for(method))
    # the first step sets what three others do not go below, at the third of which it falls
    assert rates == pytest.approx([0.01] * 4 + [0.005] * 3)


def test_the_stored_images_are_within_the_budget_and_formed() -> None:
    method = ncfm()
    problem = problem_for(method, ipc=2)
    distilled = method.distill(problem)
    assert distilled.n_stored <= problem.budget
    assert len(distilled.decode()[1]) == problem.n_classes * 2 * 4
    with pytest.raises(UserError, match="factor"):
        ncfm(factor=99).check(problem)
