"""Methods compared over data sets and ipcs: means, mean ranks and paired tests. No torch, no drawing.

A cell is a data set, ipc and evaluation architecture under one protocol. A unit is a data set and ipc: its
cells share their distilled sets, so a set that was scored on five networks counts once. Students are averaged
first, then the cells of a unit, seed by seed. What exceeds its budget somewhere, and the whole training set,
does not compete.

References:
    Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7, 2006: ranks, tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bench.analysis.aggregate import deduplicate
from bench.analysis.best import SIGNIFICANCE, separate
from bench.analysis.intervals import EXACT_DIGITS, LEAST_SEEDS, sum_of_variances, t_interval
from bench.records.columns import Floats

UNIT: Final = ["dataset", "ipc"]
COMPARED_CELL: Final = [*UNIT, "eval_arch"]
LEAST_UNITS = 6  # below this no signed-rank test can find anything: its least p with five is 0.06


@dataclass(frozen=True)
class AccuracyMatrix:
    """The accuracies of competing methods under one protocol."""

    cells: pd.DataFrame  # the columns COMPARED_CELL
    methods: list[str]
    seeds: Floats  # [methods, cells, seeds], NaN where missing
    over_budget: frozenset[str] = frozenset()  # methods that are shown, but not ranked

    @property
    def has(self) -> NDArray[np.bool_]:
        """[methods, cells]: whether the method has the cell."""
        return np.asarray(np.isfinite(self.seeds).any(axis=2))

    @property
    def units(self) -> NDArray[np.int64]:
        """[cells]: the unit of each cell."""
        return np.asarray(self.cells.groupby(UNIT).ngroup(), dtype=np.int64)

    @property
    def n_units(self) -> int:
        """How many units the cells belong to."""
        return len(np.unique(self.units))

    def part(self, methods: NDArray[np.bool_], cells: NDArray[np.bool_]) -> "AccuracyMatrix":
        """The part with these methods and cells."""
        names = [name for name, keep in zip(self.methods, methods, strict=True) if keep]
        return replace(self, cells=self.cells[cells], methods=names, seeds=self.seeds[methods][:, cells])

    def ranked(self) -> "AccuracyMatrix":
        """The part without the methods over their budget."""
        fair = np.array([name not in self.over_budget for name in self.methods], dtype=bool)
        return self.part(fair, self.has[fair].any(axis=0))

    def shared(self) -> "AccuracyMatrix":
        """The part with the methods in at least half of the cells, and the cells that all of these have."""
        compared = 2 * self.has.sum(axis=1) >= len(self.cells)
        return self.part(compared, self.has[compared].all(axis=0))

    def by_unit(self) -> Floats:
        """[methods, units, seeds]: means over the cells of each unit; NaN where a seed lacks one of them."""
        units = self.units
        found = [self.seeds[:, units == unit].mean(axis=1) for unit in np.unique(units)]
        return np.stack(found, axis=1) if found else np.empty((len(self.methods), 0, self.seeds.shape[2]))


def accuracy_matrix(flat: pd.DataFrame, summary: pd.DataFrame, protocol: str) -> AccuracyMatrix:
    """Arrange the accuracies under a protocol by method, cell and seed.

    Several sets of a method in a cell (of several distillation architectures) are averaged.

    Args:
        flat: A row per record.
        summary: `aggregate.summary_frame` of it.
        protocol: Which one.
    """
    rows = deduplicate(flat)
    rows = rows[(rows["protocol"] == protocol) & ~rows["exempt"]]
    over = summary.loc[
        (summary["protocol"] == protocol) & ~summary["exempt"] & ~summary["within_budget"], "method"
    ]
    wide = rows.pivot_table(
        index=["method", *COMPARED_CELL], columns="seed", values="accuracy", aggfunc="mean"
    )
    methods = sorted(rows["method"].unique())
    cells = rows[COMPARED_CELL].drop_duplicates().sort_values(COMPARED_CELL).reset_index(drop=True)
    seeds = np.full((len(methods), len(cells), wide.shape[1]), np.nan)
    index = wide.index.to_frame(index=False).merge(cells.reset_index(names="cell"), on=COMPARED_CELL)
    seeds[index["method"].map(methods.index), index["cell"]] = wide.to_numpy(float).round(EXACT_DIGITS)
    return AccuracyMatrix(cells, methods, seeds, frozenset(over))


def by_protocol(flat: pd.DataFrame, summary: pd.DataFrame) -> dict[str, AccuracyMatrix]:
    """The matrix of each protocol under which several methods compete."""
    found = {
        str(name): accuracy_matrix(flat, summary, str(name)) for name in sorted(summary["protocol"].unique())
    }
    return {name: matrix for name, matrix in found.items() if len(matrix.methods) > 1}


# --- one method over units ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class UnitMeans:
    """Means over seeds in each unit, [methods, units] each; NaN without a complete seed."""

    mean: Floats
    variance: Floats  # of the mean; NaN below three seeds
    freedom: Floats

    @classmethod
    def of(cls, part: AccuracyMatrix) -> "UnitMeans":
        """From the seeds that have all cells of a unit."""
        values = part.by_unit()
        count = np.isfinite(values).sum(axis=2)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.nansum(values, axis=2) / np.where(count, count, np.nan)
            squares = np.nansum(np.square(values - mean[..., None]), axis=2)
            variance = squares / np.where(count >= LEAST_SEEDS, count - 1, np.nan) / count
        return cls(mean.round(EXACT_DIGITS), variance, np.where(count >= LEAST_SEEDS, count - 1, np.nan))

    def over_units(self) -> tuple[Floats, Floats, Floats]:
        """[methods] each: the mean over units, its variance and the degrees of freedom of that."""
        variance, freedom = sum_of_variances(self.variance, self.freedom)
        return self.mean.mean(axis=1), variance / self.mean.shape[1] ** 2, freedom


def standings(matrix: AccuracyMatrix) -> pd.DataFrame:
    """Compare the methods of a matrix over the cells that they share.

    Returns:
        A row per method, the best first: `mean` over the units of the shared cells, with `ci_low` and
        `ci_high` over seeds; `rank`, `rank_to` and `best` of that mean, as in `best`; `mean_rank` over units;
        `own_cells`, those of the method; `n_cells` and `n_units`, those that are shared; `cells`, all of the
        matrix; `over_budget`. A method in fewer than half of the cells is not compared: its numbers are NaN.
        One over its budget has no rank.
    """
    table = pd.DataFrame({"method": matrix.methods})
    numbers = ["mean", "ci_low", "ci_high", "rank", "rank_to", "mean_rank"]
    table[numbers] = np.nan
    part = matrix.ranked().shared()
    if len(part.cells):
        shared = matrix.cells.index.isin(part.cells.index)
        whole = matrix.part(np.asarray(matrix.has[:, shared].all(axis=1)), shared)
        mean, variance, freedom = UnitMeans.of(whole).over_units()
        where = table["method"].isin(whole.methods)
        table.loc[where, ["mean", "ci_low", "ci_high"]] = np.stack(
            [mean, *t_interval(mean, variance, freedom)]
        ).T
        table.loc[table["method"].isin(part.methods), ["rank", "rank_to", "mean_rank"]] = _ranks(part)
    table = table.assign(
        best=table["rank"] == 1,
        own_cells=matrix.has.sum(axis=1),
        n_cells=len(part.cells),
        n_units=part.n_units,
        cells=len(matrix.cells),
        over_budget=table["method"].isin(matrix.over_budget),
    )
    return table.sort_values(["mean", "method"], ascending=[False, True]).reset_index(drop=True)


def _ranks(part: AccuracyMatrix) -> Floats:
    """[methods,3]: the places that the mean over units may have, and the mean rank over units."""
    means = UnitMeans.of(part)
    mean, variance, freedom = means.over_units()
    places = np.full((len(mean), 2), np.nan)
    known = np.isfinite(mean)
    found = separate(
        mean[known], variance[known], np.ones(known.sum()), np.nan_to_num(freedom[known], nan=0.0)
    )
    if found is not None:
        places[known] = np.stack([found.rank, found.rank_to], axis=1)
    return np.column_stack([places, average_ranks(part).loc[part.methods]])


def average_ranks(part: AccuracyMatrix) -> pd.Series:
    """Rank methods by their means in each unit, equal ones sharing a rank.

    Args:
        part: A matrix whose methods have all cells.

    Returns:
        The mean rank by method, the best first.
    """
    rank = stats.rankdata(-UnitMeans.of(part).mean, axis=0).mean(axis=1)
    return pd.Series(rank, index=part.methods).sort_index().sort_values(kind="stable")


# --- two methods over units ---------------------------------------------------------------------------------


def compare_pairs(matrix: AccuracyMatrix, names: Sequence[str]) -> pd.DataFrame:
    """Compare each pair of methods over the cells that both have.

    Args:
        matrix: With these methods.
        names: Of the methods, in the order of the pairs.

    Returns:
        A row per pair. `n_units`: how many both have. `difference`: mean over units of `first` - `second`,
        with `ci_low` and `ci_high`, its 95 % interval over seeds: on these units, not on others. `p`:
        two-sided, of Wilcoxon's signed-rank test over units, NaN below six; `p_holm`: with Holm's correction
        for all pairs.
    """
    rows = [_compare(matrix, first, second) for first, second in combinations(names, 2)]
    columns = ["first", "second", "n_units", "difference", "ci_low", "ci_high", "p"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_holm=holm(table["p"].to_numpy(float)))


def _compare(
    matrix: AccuracyMatrix, first: str, second: str
) -> tuple[str, str, int, float, float, float, float]:
    chosen = np.isin(matrix.methods, [first, second])
    part = matrix.part(chosen, np.asarray(matrix.has[chosen].all(axis=0)))
    if not len(part.cells):
        return first, second, 0, np.nan, np.nan, np.nan, np.nan
    sign = 1 if part.methods[0] == first else -1
    means = UnitMeans.of(part)
    mean, variance, freedom = means.over_units()
    difference = sign * (mean[0] - mean[1])
    low, high = t_interval(difference, *sum_of_variances(variance, freedom))
    p = signed_rank(sign * (means.mean[0] - means.mean[1]).round(EXACT_DIGITS))
    return first, second, part.n_units, difference, float(low), float(high), p


def signed_rank(differences: Floats) -> float:
    """Two-sided p of Wilcoxon's signed-rank test of differences [n]; NaN below six, 1 where all are zero."""
    if len(differences) < LEAST_UNITS or np.isnan(differences).any():
        return float("nan")
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def holm(p: Floats) -> Floats:
    """Holm's step-down correction of p-values [N], for those that are not NaN."""
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    corrected = np.full(len(p), np.nan)
    corrected[order] = np.maximum.accumulate(np.arange(len(order), 0, -1) * p[order]).clip(max=1)
    return corrected


def cliques(names: list[str], compared: pd.DataFrame) -> list[tuple[int, int]]:
    """Find the bars of a critical-difference diagram.

    Args:
        names: Of the methods, in the order of their ranks.
        compared: The pairs of them, from `compare_pairs`.

    Returns:
        Positions (first, last) of the longest runs of names in which no pair differs significantly.
    """
    apart = compared[compared["p_holm"] < SIGNIFICANCE]
    different = {frozenset(pair) for pair in zip(apart["first"], apart["second"], strict=True)}

    def alike(first: int, last: int) -> bool:
        return all(frozenset(pair) not in different for pair in combinations(names[first : last + 1], 2))

    runs = [max(j for j in range(i, len(names)) if alike(i, j)) for i in range(len(names))]
    return [(i, j) for i, j in enumerate(runs) if j > i and (i == 0 or runs[i - 1] < j)]
