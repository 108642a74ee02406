"""CCS: strata, the share of each, and what is dropped, against slow direct loops."""

import dataclasses
from typing import Any

import pytest
import torch
from helpers.method import problem_for
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.core.method import Problem
from methods.ccs import CCS, places_in, share, strata_of


def problem(aum: Tensor, labels: Tensor, ipc: int, seed: int = 0) -> Problem:
    """Image i is told by its two first pixels; its AUM is that of one epoch."""
    n, k = len(aum), int(labels.max()) + 1
    numbers = torch.arange(n)
    images = torch.stack([numbers // 256, numbers % 256], 1).to(torch.uint8).view(n, 1, 1, 2)
    dynamics = {"true": aum[None], "other": torch.zeros(1, n, dtype=aum.dtype)}
    bare = dataclasses.replace(problem_for(), images=images, labels=labels, n_classes=k)
    return dataclasses.replace(bare, ipc=ipc, seed=seed, prepared={"dynamics": dynamics})


def taken(distilled: Any, k: int) -> list[list[int]]:
    rows = distilled.images.flatten(1).long()
    return (rows[:, 0] * 256 + rows[:, 1]).view(k, -1).tolist()


def test_the_smallest_stratum_shares_first() -> None:
    sizes = torch.tensor([[10, 1, 4], [10, 1, 4], [0, 5, 5]])
    # 9: 1 of 1, then 8 // 2 = 4 of 4, then 4; 2: nothing, then 1, then 1; 3: nothing, then 1, then 2
    assert share(torch.tensor([9, 2, 3]), sizes).tolist() == [[4, 1, 4], [1, 0, 1], [0, 1, 2]]


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8), part=st.floats(0, 1))
def test_shares_are_those_of_the_authors_loop(sizes: list[int], part: float) -> None:
    budget = round(part * sum(sizes))
    expected, left = [0] * len(sizes), budget
    for rank, stratum in enumerate(sorted(range(len(sizes)), key=lambda s: sizes[s])):
        expected[stratum] = min(sizes[stratum], left // (len(sizes) - rank))
        left -= expected[stratum]
    assert left == 0
    assert share(torch.tensor([budget]), torch.tensor([sizes])).tolist() == [expected]


def test_strata_have_equal_width_within_each_group() -> None:
    values = torch.tensor([0.0, 0.24, 0.26, 1.0, 10.0, 20.0, 17.6, 5.0], dtype=torch.float64)
    groups = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2])
    assert strata_of(values, groups, 3, 4).tolist() == [0, 0, 1, 3, 0, 3, 3, 0]


def test_places_in_groups() -> None:
    assert places_in(torch.tensor([1, 0, 1, 1, 0]), 2).tolist() == [0, 0, 1, 2, 1]


def test_the_lowest_are_dropped_and_every_stratum_is_covered() -> None:
    """40 images a class: 10 are dropped, and 3 strata of 10 give 2 each."""
    aum = torch.cat([torch.linspace(0, 1, 40, dtype=torch.float64), torch.linspace(5, 9, 40).double()])
    labels = torch.arange(2).repeat_interleave(40)
    draws = [
        taken(CCS(mis_ratio=0.25, strata=3).distill(problem(aum, labels, 6, seed)), 2) for seed in (0, 1)
    ]
    for chosen in draws:
        for c, own in enumerate(chosen):
            assert sorted((i - 40 * c - 10) // 10 for i in own) == [0, 0, 1, 1, 2, 2]
            assert len(set(own)) == 6
    assert draws[0] != draws[1]


@pytest.mark.parametrize("mis_ratio", [0.0, 0.5, 0.99])
def test_a_class_keeps_as_many_as_are_asked_for(mis_ratio: float) -> None:
    aum = torch.linspace(-1, 1, 12, dtype=torch.float64)
    chosen = taken(CCS(mis_ratio=mis_ratio).distill(problem(aum, torch.arange(12) % 2, 4)), 2)
    assert all(len(set(own)) == 4 and {i % 2 for i in own} == {c} for c, own in enumerate(chosen))


def test_one_image_a_class_comes_from_the_largest_stratum() -> None:
    aum = torch.tensor([0.0, 0.9, 0.91, 0.92, 1.0], dtype=torch.float64)
    (own,) = taken(CCS(mis_ratio=0.0, strata=2).distill(problem(aum, torch.zeros(5).long(), 1)), 1)
    assert own[0] in (1, 2, 3, 4)


def test_fifty_thousand_images_are_sampled_at_once() -> None:
    labels = torch.arange(50_000) % 10
    aum = torch.rand(50_000, dtype=torch.float64, generator=problem_for().rng("of the test"))
    chosen = taken(CCS().distill(problem(aum, labels, 50)), 10)
    assert all(len(set(own)) == 50 and {i % 10 for i in own} == {c} for c, own in enumerate(chosen))
