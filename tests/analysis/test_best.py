"""Which results are the best and how they rank: the rules, and the cells of a summary."""

import math

import numpy as np
import pandas as pd
from helpers.record import make

from bench.analysis.aggregate import summary_frame
from bench.analysis.best import rank_cells, tied_ranks, tied_with_best
from bench.analysis.comparison import accuracy_matrix, over_budget, standings
from bench.records.columns import record_frame
from bench.records.schema import Record

NAN = math.nan


def best(*results: tuple[float, float, float], first_of_equals: bool = False) -> list[bool]:
    mean, low, high = np.array(results).T
    return tied_with_best(mean, low, high, first_of_equals=first_of_equals).tolist()


def test_ties_with_the_best() -> None:
    found = best((0.5, 0.4, 0.6), (0.7, 0.6, 0.8), (0.3, 0.2, 0.5), (NAN, NAN, NAN))
    assert found == [True, True, False, False]
    assert best((0.5, NAN, NAN), (0.5, NAN, NAN), (0.4, 0.3, 0.9)) == [True, True, False]
    assert best((NAN, NAN, NAN)) == [False]


def test_of_equal_means_one_interval_decides() -> None:
    """The third overlaps the first but not the second; the fourth has no interval to overlap."""
    results = [(0.5, 0.3, 0.7), (0.5, 0.45, 0.55), (0.4, 0.38, 0.42), (0.5, NAN, NAN)]
    assert best(*results) == [True, True, False, True]
    assert best(*results[::-1]) == [True, False, True, True]
    assert best(*results, first_of_equals=True) == [True, True, True, True]
    assert best(*results[::-1], first_of_equals=True) == [True, False, True, True]


def test_equal_but_for_rounding_is_tied() -> None:
    assert best((0.1 + 0.2 + 0.3, NAN, NAN), (0.3 + 0.2 + 0.1, NAN, NAN)) == [True, True]


def test_ranks_tie_where_intervals_overlap() -> None:
    """[0.7, 0.9] and [0.6, 0.8] overlap; [0.1, 0.2] lies under both; without an interval the means decide."""
    mean, low, high = np.array([[0.8, 0.7, 0.15], [0.8, 0.7, 0.7]]), np.empty((2, 3)), np.empty((2, 3))
    low[0], high[0] = (0.7, 0.6, 0.1), (0.9, 0.8, 0.2)
    low[1], high[1] = (0.7, NAN, NAN), (0.9, NAN, NAN)
    assert tied_ranks(mean, low, high).tolist() == [[1, 1, 3], [1, 2, 2]]


def seeds(method: str, values: list[float], ipc: int | None = 1, within_budget: bool = True) -> list[Record]:
    pairs = enumerate(values)
    return [make(method, ipc, (value,), seed=seed, within_budget=within_budget) for seed, value in pairs]


def test_cells_of_a_summary() -> None:
    records = [
        *seeds("best", [0.70, 0.72, 0.74]),
        *seeds("tied", [0.69, 0.71, 0.73]),
        *seeds("worse", [0.50, 0.51, 0.52]),
        *seeds("haba", [0.9] * 3, within_budget=False),
        *seeds("full", [0.99], ipc=None),
        *seeds("worse", [0.3], ipc=10),
    ]
    cells = summary_frame(record_frame(records))
    found = rank_cells(cells)
    fair = found[found["competes"]]
    assert fair["method"].tolist() == ["best", "tied", "worse", "worse"]
    assert fair["rank"].tolist() == [1, 1, 3, 1]
    assert fair["best"].tolist() == fair["summary_best"].tolist() == [True, True, False, True]
    rest = found[~found["competes"]]
    assert set(rest["method"]) == {"haba", "full"}
    assert rest["rank"].isna().all()
    assert not rest[["best", "summary_best"]].any(axis=None)
    pd.testing.assert_frame_equal(found[cells.columns], cells)


def test_the_best_of_the_standings_fits_its_budget() -> None:
    records = [*seeds("dm", [0.5] * 3), *seeds("haba", [0.9] * 3, within_budget=False)]
    flat = record_frame(records)
    cells = summary_frame(flat)
    matrix = accuracy_matrix(flat, cells)
    assert over_budget(cells, matrix) == {"haba"}
    found = standings(matrix, {"haba"})
    assert found["method"].tolist() == ["haba", "dm"]
    assert found["over_budget"].tolist() == [True, False]
    assert found["best"].tolist() == [False, True]
