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
    standings,
    wilcoxon,
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


def made(records: list[Record]) -> AccuracyMatrix:
    flat = record_frame(records)
    return accuracy_matrix(flat, summary_frame(flat))


def by_method(compared: AccuracyMatrix) -> pd.DataFrame:
    return standings(compared).set_index("method")


def row(compared: AccuracyMatrix, first: str = "a", second: str = "b") -> pd.Series:
    return compare_pairs(compared, [first, second]).iloc[0]


# --- which cells --------------------------------------------------------------------------------------------


def test_cells_and_what_does_not_compete() -> None:
    """Students first: seed 1 of `a` is (0.2 + 0.4) / 2 = 0.3, so its mean is (0.1 + 0.3) / 2 = 0.2."""
    found = made([
        make("a", 1, (0.1,), seed=0), make("a", 1, (0.2, 0.4), seed=1), make("full", None, (0.9,)),
        make("b", 2, (0.5,), eval_arch="mlp"),
    ])  # fmt: skip
    assert found.methods == ["a", "b"]
    assert found.cells.to_dict("records") == [
        {
            "dataset": "digits",
            "protocol": "quick",
            "ipc": 1,
            "distill_arch": "convnet",
            "eval_arch": "convnet",
        },
        {"dataset": "digits", "protocol": "quick", "ipc": 2, "distill_arch": "convnet", "eval_arch": "mlp"},
    ]
    assert found.means == pytest.approx(np.array([[0.2, np.nan], [np.nan, 0.5]]), nan_ok=True)


def test_a_method_without_network_is_in_every_cell_but_counts_once() -> None:
    records = [*seeds("random_real", [0.5, 0.6]), *seeds("herding", [0.4, 0.5])]  # both: any
    for arch in ("convnet", "mlp"):
        records += seeds("dm", [0.7], distill_arch=arch)
    found = made(records)
    assert list(found.cells["distill_arch"]) == ["convnet", "mlp"]
    assert found.has.all()
    assert row(found, "random_real", "dm")["n_cells"] == 2
    assert row(found, "random_real", "herding")["n_cells"] == 1
    assert list(made(seeds("random_real", [0.5])).cells["distill_arch"]) == ["any"]


def test_a_method_in_less_than_half_of_the_cells_is_not_compared() -> None:
    """Four cells; c has one of them, b three: those three are shared by a and b."""
    found = made(table({"a": [[0.1], [0.2], [0.3], [0.4]], "b": [[0.2], [0.4], [0.6]], "c": [[0.9]]}))
    shown = by_method(found)
    assert list(shown.index) == ["b", "a", "c"]
    assert (shown["n_cells"] == 3).all()
    assert (shown["cells"] == 4).all()
    assert list(shown["own_cells"]) == [3, 4, 1]
    assert shown["iqm"].tolist() == pytest.approx([0.4, 0.2, math.nan], nan_ok=True)
    assert math.isnan(shown.loc["c", "mean_rank"])
    apart = made([*seeds("a", [0.1], 1), *seeds("b", [0.1], 2)])
    assert by_method(apart)["iqm"].isna().all()
    assert row(apart)[["n_cells", "p_holm"]].tolist() == pytest.approx([0, math.nan], nan_ok=True)


# --- one method ---------------------------------------------------------------------------------------------


def test_interquartile_mean() -> None:
    """Of eight cells two go at each end: (0.3 + 0.4 + 0.5 + 0.6) / 4 = 0.45, where the mean is 3.9 / 8."""
    cells = [[0.05], [0.1], [0.3], [0.4], [0.5], [0.6], [0.95], [1.0]]
    shown = by_method(made(table({"a": cells, "b": [[0.3]] * 8})))
    assert shown["iqm"].to_dict() == pytest.approx({"a": 0.45, "b": 0.3})
    assert shown["iqm_ci_low"].isna().all()  # one seed


def test_interval_of_the_interquartile_mean() -> None:
    """Two cells, none cut off: each mean of three of {0, 0.3} has 0, 1, 2 or 3 thirds of 0.3.

    The seeds 0, 0, 0.3 of a cell give mean 0.1 k with k binomial (3, 1/3); the second cell is constant 0.5.
    So the statistic is (0.1 k + 0.5) / 2; P(k = 0) = 8/27 > 2.5 % and P(k = 3) = 1/27 > 2.5 %: 0.25 to 0.4.
    """
    shown = by_method(made(table({"a": [[0.0, 0.0, 0.3], [0.5] * 3], "b": [[0.2] * 3] * 2})))
    assert shown.loc["a", ["iqm", "iqm_ci_low", "iqm_ci_high"]].tolist() == pytest.approx([0.3, 0.25, 0.4])
    assert shown.loc["b", ["iqm", "iqm_ci_low", "iqm_ci_high"]].tolist() == pytest.approx([0.2] * 3)


def test_mean_rank_over_shared_cells() -> None:
    """b wins the first cell, a the second and third: ranks 2, 1, 1 and 1, 2, 2."""
    found = made(table({"a": [[0.1], [0.5], [0.5]], "b": [[0.2], [0.4], [0.3]]}))
    assert by_method(found)["mean_rank"].to_dict() == pytest.approx({"a": 4 / 3, "b": 5 / 3})
    assert average_ranks(found).to_dict() == pytest.approx({"a": 4 / 3, "b": 5 / 3})
    tied = made(table({"a": [[0.3], [0.5]], "b": [[0.3], [0.4]]}))
    assert average_ranks(tied).to_dict() == {"a": 1.25, "b": 1.75}  # 1.5 and 1.5, then 1 and 2


# --- two methods --------------------------------------------------------------------------------------------


def test_probability_of_improvement() -> None:
    """Cell 1: of 2 x 2 pairs of seeds 0.3 > 0.2, 0.5 > 0.2, 0.5 > 0.4 are won: 3/4.

    Cell 2: 0.4 = 0.4 is half a win, 0.6 > 0.4 one: 3/4 of two pairs. Cell 3: lost, 0. Mean: 1/2.
    """
    found = made(table({"a": [[0.3, 0.5], [0.4, 0.6], [0.1]], "b": [[0.2, 0.4], [0.4], [0.2, 0.3]]}))
    one = row(found)
    assert one["improvement"] == pytest.approx(0.5)
    assert one["difference"] == pytest.approx((0.1 + 0.1 - 0.15) / 3)
    assert math.isnan(one["ci_low"])


def test_seeds_that_differ_in_the_noise_of_sums_are_equal() -> None:
    """The same five students in another order: their means differ by 1e-16."""
    students = (0.863, 0.541, 0.3, 0.423, 0.028)
    other = (0.3, 0.541, 0.423, 0.028, 0.863)
    assert np.mean(students) < np.mean(other)
    one = row(made([make("a", 1, students), make("b", 1, other)]))
    assert one[["improvement", "difference", "p"]].tolist() == [0.5, 0, 1]


def test_very_many_seeds() -> None:
    values = (np.arange(300) / 300).tolist()
    found = made(table({"a": [values], "b": [values]}))
    shown = by_method(found).loc["a"]
    assert shown["iqm_ci_low"] < shown["iqm"] < shown["iqm_ci_high"]
    one = row(found)
    assert one["ci_low"] < one["improvement"] == 0.5 < one["ci_high"]


def test_interval_of_the_probability_of_improvement() -> None:
    """One cell, b constant 0.5; a seed of a is 0.4, 0.4 or 0.6: it wins k / 3 with k binomial (3, 1/3)."""
    one = row(made(table({"a": [[0.4, 0.4, 0.6]], "b": [[0.5] * 3]})))
    assert one[["improvement", "ci_low", "ci_high"]].tolist() == pytest.approx([1 / 3, 0, 1])
    sure = row(made(table({"a": [[0.7, 0.8, 0.9]], "b": [[0.5, 0.6, 0.4]]})))
    assert sure[["improvement", "ci_low", "ci_high"]].tolist() == [1, 1, 1]


def test_wilcoxon() -> None:
    """All of n differences to one side: p = 2 / 2^n. One of five to the other, of the least size: 4 / 2^5."""
    samples = [[0.1, 0.2, 0.3, 0.4, 0.5], [-0.1, 0.2, 0.3, 0.4, 0.5], [0.2], [0, 0], []]
    p = wilcoxon([np.array(sample, float) for sample in samples])
    assert p == pytest.approx([2 / 2**5, 4 / 2**5, 1, 1, np.nan], nan_ok=True)


def test_wilcoxon_with_ties_is_that_of_each_alone() -> None:
    """Zeros are dropped: 3 of the same sign are left, p = 2 / 2^3. Equal sizes share their ranks."""
    samples = [np.array(d) for d in ([0.0, 0.1, 0.2, 0.3], [0.1, 0.1, -0.1, 0.2], [0.3, 0.1, -0.2, 0.4])]
    assert wilcoxon(samples)[0] == pytest.approx(0.25)
    assert wilcoxon(samples) == pytest.approx([stats.wilcoxon(d).pvalue for d in samples])


@pytest.mark.parametrize(("n", "each"), [(1, 20), (2, 20), (5, 20), (13, 1), (14, 20), (50, 20), (51, 20)])
def test_wilcoxon_of_many_is_that_of_each_alone(n: int, each: int) -> None:
    drawn = np.random.default_rng(n).normal(size=(each, n))
    samples = [*drawn, *drawn.round(0)]
    alone = [stats.wilcoxon(d).pvalue if d.any() else 1.0 for d in samples]
    assert wilcoxon(samples).tolist() == alone


def test_few_tied_cells_are_not_left_to_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """scipy takes half a second for a pair with 13 cells, so minutes for twenty methods."""
    samples = [*np.random.default_rng(0).integers(-2, 3, (20, 13)).astype(float)]
    monkeypatch.setattr(stats, "wilcoxon", None)
    assert ((wilcoxon(samples) > 0) & (wilcoxon(samples) <= 1)).all()


def test_holm() -> None:
    """Sorted 0.01, 0.02, 0.04 times 3, 2, 1: 0.03, 0.04, 0.04; 0.04 x 1 may not fall below 0.02 x 2."""
    assert holm(np.array([0.02, np.nan, 0.01, 0.04])) == pytest.approx(
        [0.04, np.nan, 0.03, 0.04], nan_ok=True
    )
    assert holm(np.array([0.5, 0.9])).tolist() == [1, 1]
    assert len(holm(np.array([]))) == 0


def test_pairs_are_corrected_together() -> None:
    """Six cells: a above b above c in all. Three p of 2 / 64 each, all times 3."""
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
    st.lists(st.tuples(*[st.lists(ACCURACY, min_size=1, max_size=4)] * 2), min_size=1, max_size=4),
    st.randoms(),
)
def test_antisymmetric_in_any_order(cells: list[tuple[list[float], list[float]]], shuffle: Any) -> None:
    """Swapping a and b changes the sign only; the order of records and seeds does not matter."""
    values = {"a": [x for x, _ in cells], "b": [y for _, y in cells]}
    records = table(values)
    found = made(records)
    ahead, behind = row(found), row(found, "b", "a")
    assert ahead["improvement"] == pytest.approx(1 - behind["improvement"])
    assert ahead["difference"] == pytest.approx(-behind["difference"])
    assert ahead["p"] == pytest.approx(behind["p"])
    for low, high in (("ci_low", "ci_high"), ("ci_high", "ci_low")):
        assert ahead[low] == pytest.approx(1 - behind[high], abs=1e-6, nan_ok=True)
    shuffle.shuffle(records)
    for cell in (*values["a"], *values["b"]):
        shuffle.shuffle(cell)
    for other in (made(records), made(table(values))):
        pd.testing.assert_frame_equal(compare_pairs(other, ["a", "b"]), compare_pairs(found, ["a", "b"]))
        pd.testing.assert_frame_equal(standings(other), standings(found))


def test_a_method_keeps_its_interval_when_others_join() -> None:
    a, b = [[0.1, 0.2, 0.3], [0.4, 0.6, 0.8]], [[0.5, 0.6, 0.7], [0.2, 0.3, 0.1]]
    alone = by_method(made(table({"b": b})))
    beside = by_method(made(table({"a": a, "b": b})))
    ends = ["iqm_ci_low", "iqm_ci_high"]
    assert alone.loc["b", ends].tolist() == beside.loc["b", ends].tolist()
