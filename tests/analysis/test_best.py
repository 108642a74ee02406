"""Which results are told apart: simulated families, the rules, and the columns of a summary."""

import math

import numpy as np
import pandas as pd
import pytest
from helpers.record import make
from helpers.separation import EQUAL, MEASURED, families, seen, separated

from bench.analysis.aggregate import summary_frame
from bench.analysis.best import Separation, rank_cells, separate, separate_rows
from bench.records.columns import record_frame
from bench.records.schema import Record


@pytest.mark.parametrize("seeds", [3, 5])
def test_of_equal_methods_at_most_one_table_in_twenty_separates_anybody(seeds: int) -> None:
    """14 equal methods, 300 tables: 5 % and two standard errors of that."""
    wrong = separated(families(EQUAL, seeds, 300))
    assert wrong < 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)


@pytest.mark.parametrize(("seeds", "most"), [(3, 0.08), (5, 0.08)])
def test_methods_of_other_spread_are_hardly_more_often_separated(seeds: int, most: float) -> None:
    """Spreads as measured, from 0.6 to 5 points. Tukey's test separates somebody in 26 % of such tables."""
    wrong = separated(families(MEASURED, seeds, 300))
    assert wrong < most + 2 * math.sqrt(most * (1 - most) / 300)


def test_power_grows_with_seeds() -> None:
    """One of 14 methods is four standard deviations better."""
    three, five, ten = (seen(families(EQUAL, seeds, 50, lift=0.04)) for seeds in (3, 5, 10))
    assert three > 0.3
    assert five > 0.9
    assert ten > 0.99


def test_the_difference_that_is_told_is_the_one_of_the_note() -> None:
    """With equal spreads every pair needs the same difference, and that is what is shown."""
    numbers = np.array([[0.5, 0.01, 5], [0.5, 0.01, 5], [0.5, 0.01, 5]])
    least = separate_rows(numbers)
    assert least is not None
    for shift, told in ((0.99, False), (1.01, True)):
        moved = numbers.copy()
        moved[0, 0] += shift * least.least_difference
        found = separate_rows(moved)
        assert found is not None
        assert found.above[0, 1] == found.above[0, 2] == told
    more = separate_rows(numbers, seeds=10)
    assert more is not None
    assert more.least_difference < least.least_difference


def test_what_has_no_spread_and_what_has_no_seeds() -> None:
    certain = separate_rows(np.array([[0.5, 0.0, 3], [0.5 + 1e-15, 0.0, 3], [0.4, 0.0, 3]]))
    assert certain is not None
    assert certain.rank.tolist() == [1, 1, 3]
    assert certain.rank_to.tolist() == [2, 2, 3]
    assert separate_rows(np.array([[0.5, math.nan, 1], [0.4, math.nan, 1]])) is None
    one_seed = separate_rows(np.array([[0.9, 0.01, 3], [0.5, math.nan, 1], [0.5, 0.01, 3]]))
    assert one_seed is not None
    assert one_seed.rank.tolist() == [1, 2, 2]


@pytest.mark.filterwarnings("error")
def test_the_rounding_of_sums_is_no_spread() -> None:
    """The deviation of 0.1 + 0.2 and 0.3 is 4e-17."""
    numbers = np.array([[0.3, 4e-17, 3], [0.3, 0.0, 3], [0.2, 0.0, 3]])
    for n in (None, 5):
        found = separate_rows(numbers, n)
        assert found is not None
        assert found.rank.tolist() == [1, 1, 3]


def test_ranks_are_ranges_of_places() -> None:
    above = np.zeros((3, 3), dtype=bool)
    above[0, 2] = True  # the second, a noisy one, is told apart from nobody
    found = Separation(above, 0.1)
    assert list(zip(found.rank.tolist(), found.rank_to.tolist(), strict=True)) == [(1, 2), (1, 3), (2, 3)]


def test_one_result_is_the_best() -> None:
    found = separate(np.array([0.5]), np.array([0.01]), np.array([3.0]), np.array([2.0]))
    assert found is not None
    assert (found.rank.tolist(), found.rank_to.tolist()) == ([1], [1])


def test_the_same_numbers_in_any_order_give_the_same_places() -> None:
    rng = np.random.default_rng(0)
    numbers = np.stack([rng.normal(0.6, 0.05, 8), rng.uniform(0.005, 0.02, 8), np.full(8, 4)], axis=1)
    order = rng.permutation(8)
    first, second = separate_rows(numbers), separate_rows(numbers[order])
    assert first is not None
    assert second is not None
    # the draws are by position, so that a pair close to the limit may fall on either side: none is here
    assert first.above[np.ix_(order, order)].tolist() == second.above.tolist()


# --- the cells of a summary ---------------------------------------------------------------------------------


def seeds(method: str, values: list[float], ipc: int | None = 1, within_budget: bool = True) -> list[Record]:
    pairs = enumerate(values)
    return [make(method, ipc, (value,), seed=seed, within_budget=within_budget) for seed, value in pairs]


def test_cells_of_a_summary() -> None:
    records = [
        *seeds("best", [0.70, 0.72, 0.74]),
        *seeds("tied", [0.69, 0.71, 0.73]),
        *seeds("worse", [0.50, 0.51, 0.52]),
        *seeds("haba", [0.9, 0.91, 0.92], within_budget=False),
        *seeds("full", [0.99], ipc=None),
        *seeds("worse", [0.3], ipc=10),
    ]
    cells = summary_frame(record_frame(records))
    fair = cells[cells["competes"]]
    assert fair["method"].tolist() == ["best", "tied", "worse", "worse"]
    assert fair["rank"].tolist() == [1, 1, 3, pd.NA]
    assert fair["rank_to"].tolist() == [2, 2, 3, pd.NA]
    assert fair["best"].tolist() == [True, True, False, False]  # of a single seed nothing is told
    rest = cells[~cells["competes"]]
    assert set(rest["method"]) == {"haba", "full"}
    assert rest["rank"].isna().all()
    assert not rest["best"].any()
    pd.testing.assert_frame_equal(rank_cells(cells), cells)


def test_bold_is_rank_one() -> None:
    rng = np.random.default_rng(0)
    records = [
        r for i in range(12) for r in seeds(f"m{i}", (0.5 + 0.015 * i + 0.01 * rng.normal(size=3)).tolist())
    ]
    cells = summary_frame(record_frame(records))
    assert (cells["best"] == (cells["rank"] == 1)).all()
    assert 1 < cells["best"].sum() < 12
