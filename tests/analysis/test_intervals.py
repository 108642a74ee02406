"""Intervals of many cells at once against scipy, one at a time: equal to the last bit."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.analysis.dd_ranking import FORMULAS
from bench.analysis.intervals import MEAN_RESAMPLES, intervals, only_mean
from bench.records.groups import Floats, Ragged, group_means, ragged, without_missing

Cell = Sequence[Sequence[float]]  # its groups
COMBINE: list[Callable[..., Any]] = [
    only_mean,
    FORMULAS["ior"],
    FORMULAS["lrs"],
]  # of one, two and three groups


def scipys(groups: Cell, combine: Callable[..., Any], method: str = "BCa") -> tuple[float, float]:
    def statistic(*samples: Any, axis: int = -1) -> Any:
        return combine(*(sample.mean(axis) for sample in samples))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = [np.sort(group) for group in groups]
        rng = np.random.default_rng(0)
        found = stats.bootstrap(drawn, statistic, method=method, n_resamples=MEAN_RESAMPLES, rng=rng)
    low, high = map(float, found.confidence_interval)
    if method == "BCa" and not np.isfinite([low, high]).all():
        return scipys(groups, combine, "percentile")
    return low, high


def ours(cells: Sequence[Cell], combine: Callable[..., Any]) -> Floats:
    return intervals(*map(ragged, zip(*cells, strict=True)), combine=combine)


def seeds(n: int) -> st.SearchStrategy[list[float]]:
    """Accuracies on test splits of 20 and of 10,000 images, and any fraction: with and without ties."""
    some = [st.integers(0, 20).map(lambda k: k / 20), st.integers(0, 30_000).map(lambda k: k / 30_000)]
    return st.one_of(*(st.lists(one, min_size=n, max_size=n) for one in [*some, st.floats(0, 1)]))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_numbers_are_those_of_scipy(data: st.DataObject) -> None:
    combine = COMBINE[(count := data.draw(st.integers(1, 3))) - 1]
    sizes = data.draw(st.lists(st.integers(3, 6), min_size=count, max_size=count))
    cells = [[data.draw(seeds(n)) for n in sizes] for _ in range(2)]
    for cell, found in zip(cells, ours(cells, combine).tolist(), strict=True):
        if any(len(set(group)) > 1 for group in cell):
            assert tuple(found) == scipys(cell, combine)
        else:
            assert tuple(found) == (combine(*(group[0] for group in cell)),) * 2


@pytest.mark.parametrize("n", [3, 5, 12, 40])
def test_any_number_of_seeds(n: int) -> None:
    values = np.random.default_rng(n).normal(0.5, 0.02, (3, 3, n))
    for count, combine in enumerate(COMBINE, start=1):
        cells = [cell[:count].tolist() for cell in values]
        assert list(map(tuple, ours(cells, combine).tolist())) == [scipys(cell, combine) for cell in cells]


def test_a_hundred_cells_of_mixed_sizes_keep_their_places() -> None:
    rng = np.random.default_rng(0)
    cells = [[rng.normal(0.5, 0.02, rng.integers(3, 6)).round(3).tolist()] for _ in range(100)]
    expected = [scipys(cell, only_mean) for cell in cells]
    assert list(map(tuple, ours(cells, only_mean).tolist())) == expected
    shuffled = [[group[::-1] for group in cell] for cell in cells]
    assert list(map(tuple, ours(shuffled, only_mean).tolist())) == expected  # whatever the order of the seeds


@pytest.mark.parametrize(
    "cell",
    [
        [(0.5, 0.5, math.nextafter(0.5, 1))],  # the jackknife cannot tell them apart: BCa is undefined
        [(0.2, 0.2, 0.2), (0.1, 0.2, 0.3)],  # one of two groups is constant
        [(0.1, 0.2, 0.3), (0.3, 0.2, 0.1)],  # an estimate of 0
        [(0.0, 0.0, 1.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)],
        [(0.1, 0.2, 0.3), (0.2, 0.3, 0.4), (0.8, 0.9, 1.0)],  # all sums tie
    ],
)
def test_degenerate_groups(cell: Cell) -> None:
    combine = COMBINE[len(cell) - 1]
    assert tuple(ours([cell], combine)[0].tolist()) == scipys(cell, combine)


def test_what_has_no_interval() -> None:
    cells: list[Cell] = [[(0.1, 0.2)], [()], [(0.3, 0.3, 0.3)], [(0.1, math.nan, 0.3)], [(0.1, 0.2, 0.3)]]
    found = ours(cells, only_mean)
    assert np.isnan(found[[0, 1, 3]]).all()
    assert found[2].tolist() == [0.3, 0.3]
    assert found[4].tolist() == list(scipys(cells[4], only_mean))
    assert intervals(ragged([])).shape == (0, 2)


def test_groups_of_different_sizes() -> None:
    group = Ragged(np.array([1.0, math.nan, 3.0, 5.0, math.nan]), np.array([2, 0, 2, 1]))
    there = without_missing(group)
    assert there.sizes.tolist() == [1, 0, 2, 0]
    assert there.values.tolist() == [1.0, 3.0, 5.0]
    np.testing.assert_array_equal(group_means(there), [1.0, math.nan, 4.0, math.nan])
