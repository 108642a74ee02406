"""Coresets by score: each formula by hand in float64, and which images a score takes."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from helpers.method import problem_for, small
from torch import Tensor

from bench.core.method import Problem
from methods.aum import AUM
from methods.blocks.dynamics import area_under_margin
from methods.blocks.scores import select_by_score
from methods.el2n import EL2N
from methods.forgetting import Forgetting, forgetting_events
from methods.grad_norm import GradNorm
from methods.uncertainty import Uncertainty, uncertainty

TRUE = torch.tensor([[0.2, 0.9, 0.6], [0.7, 0.8, 0.1], [0.3, 0.9, 0.2], [0.8, 0.9, 0.4]], dtype=torch.float64)
OTHER = torch.tensor(
    [[0.5, 0.1, 0.3], [0.2, 0.1, 0.8], [0.6, 0.1, 0.7], [0.1, 0.1, 0.5]], dtype=torch.float64
)


def problem(ipc: int = 2, **prepared: dict[str, Tensor]) -> Problem:
    """Three classes of six; image i is told by its first pixel, i."""
    bare = problem_for(ipc=ipc, smooth=True, prepared=prepared)
    images = torch.arange(18, dtype=torch.uint8).view(-1, 1, 1, 1).expand_as(bare.images).clone()
    return dataclasses.replace(bare, images=images, prepared=prepared)


def taken(distilled: Any) -> list[list[int]]:
    """The positions of a set's images in each class."""
    return distilled.images[:, 0, 0, 0].view(3, -1).tolist()


# --- formulas -----------------------------------------------------------------------------------------------


def test_el2n_sums_the_error_of_the_first_epochs() -> None:
    error = torch.tensor([[0.5, 0.1], [0.25, 0.2], [9.0, 9.0]], dtype=torch.float64)
    assert EL2N(first_epochs=2).hardness({"error": error}).tolist() == pytest.approx([0.75, 0.3], rel=1e-12)
    assert EL2N().hardness({"error": error}).tolist() == pytest.approx([9.75, 9.3], rel=1e-12)


def test_forgetting_counts_from_right_to_wrong_and_never_learned_is_the_most() -> None:
    right = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 1, 1, 0], [1, 0, 1, 1, 0], [0, 0, 1, 0, 1]]).bool()
    assert forgetting_events(right).tolist() == [2, 4, 0, 1, 0]
    hardness = Forgetting().hardness({"true": TRUE, "other": OTHER})
    assert hardness.tolist() == [1, 0, 1]


def test_area_under_the_margin() -> None:
    expected = [-0.3 + 0.5 - 0.3 + 0.7, 0.8 + 0.7 + 0.8 + 0.8, 0.3 - 0.7 - 0.5 - 0.1]
    assert area_under_margin(TRUE, OTHER).tolist() == pytest.approx(expected, rel=1e-12)
    found = AUM().hardness({"true": TRUE, "other": OTHER})
    assert found.argsort(descending=True).tolist() == [2, 0, 1]  # the lowest area is hardest


def test_uncertainty() -> None:
    p = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.4, 0.0]], dtype=torch.float64)
    entropies = [-sum(q * math.log(q) for q in row if q) for row in p.tolist()]
    assert uncertainty(p, "least_confidence").tolist() == pytest.approx([0.5, 0.4], rel=1e-12)
    assert uncertainty(p, "margin").tolist() == pytest.approx([0.8, 0.8], rel=1e-12)
    assert uncertainty(p, "entropy").tolist() == pytest.approx(entropies, rel=1e-12)


@pytest.mark.parametrize("measure", ["least_confidence", "margin", "entropy"])
def test_the_most_certain_is_the_easiest(measure: Any) -> None:
    """Some code takes the most certain images as the most uncertain."""
    p = torch.full((18, 3), 0.05)
    p[torch.arange(18), torch.arange(18) % 3] = torch.linspace(0.4, 0.9, 18)
    p = p / p.sum(1, keepdim=True)
    given = problem(dynamics={"probabilities": p})
    easiest = Uncertainty(pick="easiest", measure=measure).distill(given)
    hardest = Uncertainty(pick="hardest", measure=measure).distill(given)
    assert taken(easiest) == [[15, 12], [16, 13], [17, 14]]
    assert taken(hardest) == [[0, 3], [1, 4], [2, 5]]


# --- which images are taken ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pick", "ipc", "places"),
    [
        ("easiest", 1, [0]),
        ("easiest", 3, [0, 1, 2]),
        ("hardest", 1, [5]),
        ("hardest", 3, [5, 4, 3]),
        ("median", 1, [2]),
        ("median", 2, [2, 3]),
        ("median", 4, [1, 2, 3, 4]),
        ("median", 6, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_images_are_taken_by_their_rank_in_the_class(pick: Any, ipc: int, places: list[int]) -> None:
    given = problem(ipc)
    hardness = torch.randperm(18, generator=given.rng("of the test")).double()
    chosen = taken(select_by_score(given, hardness, pick))
    for c, found in enumerate(chosen):
        members = sorted(range(c, 18, 3), key=lambda i: float(hardness[i]))
        assert found == [members[place] for place in places]


@pytest.mark.parametrize("pick", ["easiest", "median", "hardest"])
def test_equals_are_drawn_and_none_twice(pick: Any) -> None:
    draws = [
        taken(select_by_score(dataclasses.replace(problem(2), seed=seed), torch.zeros(18), pick))
        for seed in range(5)
    ]
    assert len({str(draw) for draw in draws}) > 1
    assert all(len(set(own)) == 2 and {i % 3 for i in own} == {c} for d in draws for c, own in enumerate(d))


@pytest.mark.parametrize("pick", ["easiest", "median", "hardest"])
def test_a_small_class_repeats_its_images_in_order(pick: Any) -> None:
    given = problem(4)
    kept = torch.tensor([i for i in range(18) if i % 3 or i in (0, 3)])
    given = dataclasses.replace(given, images=given.images[kept], labels=given.labels[kept])
    chosen = taken(select_by_score(given, kept.double(), pick, repeat=True))
    assert chosen[0] == ([3, 0, 3, 0] if pick == "hardest" else [0, 3, 0, 3])
    assert len(set(chosen[1])) == 4


def test_all_scores_share_one_training() -> None:
    needed = [small(name).requires()["dynamics"] for name in ("el2n", "forgetting", "aum", "uncertainty")]
    assert len(set(needed)) == 1


def test_fifty_thousand_images_are_ranked_at_once() -> None:
    n = 50_000
    images = torch.zeros(n, 1, 1, 1, dtype=torch.uint8)
    given = dataclasses.replace(problem(50), images=images, labels=torch.arange(n) % 10, n_classes=10)
    hardness = torch.rand(n, generator=given.rng("of the test"))
    assert len(select_by_score(given, hardness, "median").images) == 500


def test_grad_norm_is_the_mean_over_networks_after_the_last_epoch() -> None:
    """The epochs before it would take others."""
    n = torch.arange(18.0)
    given = problem(
        1,
        **{
            "dynamics/0": {"gradient": torch.stack([-9 * n, n])},
            "dynamics/1": {"gradient": torch.stack([-9 * n, 3 * (n - 12.2).abs()])},
        },
    )
    mean = (n + 3 * (n - 12.2).abs()) / 2
    for pick, best in (("easiest", min), ("hardest", max)):
        chosen = taken(GradNorm(members=2, pick=pick).distill(given))
        assert chosen == [[best(range(c, 18, 3), key=lambda i: float(mean[i]))] for c in range(3)]


def test_grad_norm_asks_for_different_networks() -> None:
    assert len(set(GradNorm(members=3).requires().values())) == 3
