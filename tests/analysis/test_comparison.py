"""Methods compared over cells: numbers computed by hand, and independence of names and orders."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.record import make
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.analysis.aggregate import summary_frame
from bench.analysis.comparison import (
    AccuracyMatrix,
    accuracy_matrix,
    average_ranks,
    cliques,
    compare_pairs,
    holm,
    signed_rank,
    standings,
)
from bench.records.columns import record_frame
from bench.records.schema import Record

ACCURACY = st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


def seeds(method: str, values: Sequence[float], ipc: int = 1, **fields: Any) -> list[Record]:
    return [make(method, ipc, (value,), seed=seed, **fields) for seed, value in enumerate(values)]


def table(values: dict[str, Sequence[Sequence[float]]], **fields: Any) -> list[Record]:
    """Records of a method's accuracies by cell (ipc 1, 2, ...) and seed."""
    return [
        record
        for method, cells in values.items()
        for ipc, found in enumerate(cells, start=1)
        for record in seeds(method, found, ipc, **fields)
    ]


def made(records: list[Record], protocol: str = "quick") -> AccuracyMatrix:
    flat = record_frame(records)
    return accuracy_matrix(flat, summary_frame(flat), protocol)


def by_method(compared: AccuracyMatrix) -> pd.DataFrame:
    return standings(compared).set_index("method")


def row(compared: AccuracyMatrix, first: str = "a", second: str = "b") -> pd.Series:
    return compare_pairs(compared, [first, second]).iloc[0]


# --- which cells --------------------------------------------------------------------------------------------


def test_cells_and_what_does_not_compete() -> None:
    """Students first: seed 1 of `a` is (0.2 + 0.4) / 2 = 0.3. The whole training set is no method."""
    found = made([
        make("a", 1, (0.1,), seed=0), make("a", 1, (0.2, 0.4), seed=1), make("full", None, (0.9,)),
        make("b", 2, (0.5,), eval_arch="mlp"),
    ])  # fmt: skip
    assert found.methods == ["a", "b"]
    assert found.cells.to_dict("records") == [
        {"dataset": "digits", "ipc": 1, "eval_arch": "convnet"},
        {"dataset": "digits", "ipc": 2, "eval_arch": "mlp"},
    ]
    expected = np.array([[[0.1, 0.3], [np.nan] * 2], [[np.nan] * 2, [0.5, np.nan]]])
    assert found.seeds == pytest.approx(expected, nan_ok=True)


def test_one_set_scored_on_five_networks_counts_once() -> None:
    """So do real images, which are the same beside the sets of two distillation architectures."""
    records = []
    for arch in ("convnet", "mlp", "vit", "resnet", "lenet"):
        records += seeds("random_real", [0.5, 0.6, 0.7], eval_arch=arch)
        for source in ("convnet", "mlp"):
            records += seeds("dm", [0.7, 0.8, 0.9], eval_arch=arch, distill_arch=source)
    found = made(records)
    assert (len(found.cells), found.n_units) == (5, 1)
    one = row(found, "dm", "random_real")
    assert one["n_units"] == 1
    assert one["difference"] == pytest.approx(0.2)
    assert math.isnan(one["p"])
    error = math.sqrt(
        2 * 0.1**2 / 3
    )  # sd 0.1 over three seeds on both sides, as if scored on a single network
    assert one["ci_high"] == pytest.approx(0.2 + stats.t.ppf(0.975, 4) * error)


def test_a_method_in_less_than_half_of_the_cells_is_not_compared() -> None:
    """Four cells; c has one of them, b three: those three are shared by a and b."""
    found = made(table({"a": [[0.1], [0.2], [0.3], [0.4]], "b": [[0.2], [0.4], [0.6]], "c": [[0.9]]}))
    shown = by_method(found)
    assert list(shown.index) == ["b", "a", "c"]
    assert (shown["n_cells"] == 3).all()
    assert (shown["n_units"] == 3).all()
    assert (shown["cells"] == 4).all()
    assert list(shown["own_cells"]) == [3, 4, 1]
    assert shown["mean"].tolist() == pytest.approx([0.4, 0.2, math.nan], nan_ok=True)
    assert math.isnan(shown.loc["c", "mean_rank"])
    apart = made([*seeds("a", [0.1], 1), *seeds("b", [0.1], 2)])
    assert by_method(apart)["mean"].isna().all()
    assert row(apart)[["n_units", "p_holm"]].tolist() == pytest.approx([0, math.nan], nan_ok=True)


def test_what_is_over_its_budget_does_not_compete_anywhere() -> None:
    """haba has the highest mean: it is shown, without rank, and nobody's mean rank counts it."""
    values = {"a": [[0.5, 0.51, 0.52]] * 2, "b": [[0.4, 0.41, 0.42]] * 2}
    records = [*table(values), *table({"haba": [[0.9, 0.91, 0.92]] * 2}, within_budget=False)]
    shown = by_method(made(records))
    assert list(shown.index) == ["haba", "a", "b"]
    assert shown["mean_rank"].tolist() == pytest.approx([math.nan, 1, 2], nan_ok=True)
    assert shown["rank"].tolist() == pytest.approx([math.nan, 1, 2], nan_ok=True)
    assert shown["best"].tolist() == [False, True, False]
    assert shown.loc["haba", "mean"] == pytest.approx(0.91)
    assert made(records).ranked().methods == ["a", "b"]


# --- one method ---------------------------------------------------------------------------------------------


def test_the_mean_over_units_and_its_interval() -> None:
    """Unit 1: mean of two networks, seed by seed; unit 2 has five seeds. Freedom by Satterthwaite."""
    records = [
        *seeds("a", [0.1, 0.2, 0.3], 1), *seeds("a", [0.3, 0.4, 0.8], 1, eval_arch="mlp"),
        *seeds("a", [0.6, 0.7, 0.8, 0.7, 0.7], 2), *seeds("b", [0.1] * 3, 1), *seeds("b", [0.1] * 3, 2),
        *seeds("b", [0.1] * 3, 1, eval_arch="mlp"),
    ]  # fmt: skip
    shown = by_method(made(records)).loc["a"]
    one, two = np.array([0.2, 0.3, 0.55]), np.array([0.6, 0.7, 0.8, 0.7, 0.7])
    assert shown["mean"] == pytest.approx((one.mean() + two.mean()) / 2)
    terms = np.array([one.var(ddof=1) / 3, two.var(ddof=1) / 5]) / 4
    freedom = terms.sum() ** 2 / (terms**2 / [2, 4]).sum()
    assert shown["ci_high"] - shown["mean"] == pytest.approx(
        stats.t.ppf(0.975, freedom) * math.sqrt(terms.sum())
    )


def test_a_seed_that_lacks_a_network_is_left_out() -> None:
    records = [
        *seeds("a", [0.1, 0.2, 0.9]),
        *seeds("a", [0.3, 0.4], eval_arch="mlp"),
        *seeds("b", [0.1, 0.1]),
    ]
    records += seeds("b", [0.1, 0.1], eval_arch="mlp")
    assert by_method(made(records)).loc["a", "mean"] == pytest.approx((0.2 + 0.3) / 2)


def test_mean_rank_over_shared_units() -> None:
    """b wins the first unit, a the second and third: ranks 2, 1, 1 and 1, 2, 2."""
    found = made(table({"a": [[0.1], [0.5], [0.5]], "b": [[0.2], [0.4], [0.3]]}))
    assert by_method(found)["mean_rank"].to_dict() == pytest.approx({"a": 4 / 3, "b": 5 / 3})
    assert average_ranks(found).to_dict() == pytest.approx({"a": 4 / 3, "b": 5 / 3})
    tied = made(table({"a": [[0.3], [0.5]], "b": [[0.3], [0.4]]}))
    assert average_ranks(tied).to_dict() == {"a": 1.25, "b": 1.75}  # 1.5 and 1.5, then 1 and 2


# --- two methods --------------------------------------------------------------------------------------------


def test_seeds_that_differ_in_the_noise_of_sums_are_equal() -> None:
    """The same five students in another order: their means differ by 1e-16."""
    students = (0.863, 0.541, 0.3, 0.423, 0.028)
    other = (0.3, 0.541, 0.423, 0.028, 0.863)
    one = row(made([r for ipc in range(1, 7) for r in (make("a", ipc, students), make("b", ipc, other))]))
    assert one[["difference", "p"]].tolist() == [0, 1]


def test_signed_rank() -> None:
    """All of six differences to one side: p = 2 / 2^6. One to the other, of the least size: 4 / 2^6."""
    values = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert signed_rank(values) == pytest.approx(2 / 64)
    assert signed_rank(values * [-1, 1, 1, 1, 1, 1]) == pytest.approx(4 / 64)
    assert signed_rank(np.zeros(6)) == 1
    assert math.isnan(signed_rank(values[:5]))  # 2 / 2^5 is above 0.05: nothing could be found


def test_holm() -> None:
    """Sorted 0.01, 0.02, 0.04 times 3, 2, 1: 0.03, 0.04, 0.04; 0.04 x 1 may not fall below 0.02 x 2."""
    assert holm(np.array([0.02, np.nan, 0.01, 0.04])) == pytest.approx(
        [0.04, np.nan, 0.03, 0.04], nan_ok=True
    )
    assert holm(np.array([0.5, 0.9])).tolist() == [1, 1]
    assert len(holm(np.array([]))) == 0


def test_pairs_are_corrected_together() -> None:
    """Six units: a above b above c in all. Three p of 2 / 64 each, all times 3."""
    values = {m: [[base + 0.01 * i] for i in range(6)] for m, base in (("a", 0.8), ("b", 0.5), ("c", 0.2))}
    found = compare_pairs(made(table(values)), ["a", "b", "c"])
    assert found["p"].tolist() == pytest.approx([2 / 64] * 3)
    assert found["p_holm"].tolist() == pytest.approx([6 / 64] * 3)
    assert list(zip(found["first"], found["second"], strict=True)) == [("a", "b"), ("a", "c"), ("b", "c")]


# --- cliques ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("apart", "bars"),
    [
        ([], [(0, 3)]),
        (["ad"], [(0, 2), (1, 3)]),
        (["ab", "ac", "ad"], [(1, 3)]),
        (["ac"], [(0, 1), (1, 3)]),  # b differs from neither; a and d alone are no run
        (["ab", "bc", "cd"], []),
    ],
)
def test_cliques_are_the_longest_runs_without_a_difference(apart: list[str], bars: list[Any]) -> None:
    compared = pd.DataFrame(
        [(x, y, 0.01 if x + y in apart else 0.2) for x, y in ("ab", "ac", "ad", "bc", "bd", "cd")],
        columns=["first", "second", "p_holm"],
    )
    assert cliques(list("abcd"), compared) == bars


# --- properties ---------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.tuples(*[st.lists(ACCURACY, min_size=1, max_size=4)] * 2), min_size=1, max_size=7),
    st.randoms(),
)
def test_antisymmetric_in_any_order(cells: list[tuple[list[float], list[float]]], shuffle: Any) -> None:
    """Swapping a and b changes the sign only; the order of records does not matter."""
    values = {"a": [x for x, _ in cells], "b": [y for _, y in cells]}
    records = table(values)
    found = made(records)
    ahead, behind = row(found), row(found, "b", "a")
    assert ahead["difference"] == pytest.approx(-behind["difference"])
    assert ahead["p"] == pytest.approx(behind["p"], nan_ok=True)
    assert ahead["ci_low"] == pytest.approx(-behind["ci_high"], nan_ok=True)
    shuffle.shuffle(records)
    other = made(records)
    pd.testing.assert_frame_equal(compare_pairs(other, ["a", "b"]), compare_pairs(found, ["a", "b"]))
    pd.testing.assert_frame_equal(standings(other), standings(found))


def test_a_method_keeps_its_interval_when_others_join() -> None:
    a, b = [[0.1, 0.2, 0.3], [0.4, 0.6, 0.8]], [[0.5, 0.6, 0.7], [0.2, 0.3, 0.1]]
    alone = by_method(made(table({"b": b})))
    beside = by_method(made(table({"a": a, "b": b})))
    ends = ["ci_low", "ci_high"]
    assert alone.loc["b", ends].tolist() == beside.loc["b", ends].tolist()
