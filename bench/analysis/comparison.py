"""Methods compared over cells: interquartile means, ranks and paired tests. No torch, no drawing.

A cell is a data set, protocol, ipc, distillation and evaluation architecture. The accuracy of a method there
is its mean over distillation seeds, students averaged first. The whole training set, which is exempt from the
budget, does not compete.

References:
    Agarwal et al., Deep reinforcement learning at the edge of the statistical precipice, NeurIPS 2021:
    interquartile mean, stratified bootstrap, probability of improvement.
    Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7, 2006: ranks, tests.
"""

import zlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bench.analysis.aggregate import deduplicate
from bench.analysis.best import EXACT_DIGITS, tied_ranks, tied_with_best
from bench.analysis.intervals import CONFIDENCE, LEAST_SEEDS
from bench.records.groups import Floats
from bench.records.naming import CELL

COMPARED_CELL: Final = ["dataset", "protocol", "ipc", "distill_arch", "eval_arch"]
TRIM = 0.25  # part of the cells that the interquartile mean leaves out at each end
SIGNIFICANCE = 0.05
SEED_RESAMPLES = 1000  # bootstrap samples of the seeds of each cell
ENUMERATED = 13  # number of differences with ties up to which all signs are enumerated, as in scipy


@dataclass(frozen=True)
class AccuracyMatrix:
    """The accuracy of each method in each cell. A group is the seeds of one method in one cell.

    A method that needs no network has the same group in the cells of several distillation architectures.
    """

    cells: pd.DataFrame  # the columns COMPARED_CELL
    methods: list[str]
    at: NDArray[np.int64]  # [cells, methods]: the group; -1 where the method lacks the cell
    mean: Floats  # [groups]
    low: Floats  # [groups]: lower end of the interval; NaN below three seeds
    high: Floats  # [groups]: upper end
    seeds: Floats  # [groups, most seeds]: accuracies in ascending order, then NaN

    @cached_property
    def means(self) -> Floats:
        """[cells, methods]: mean accuracies, NaN where missing."""
        return self._where_known(self.mean)

    def _where_known(self, values: Floats) -> Floats:
        return np.where(self.at >= 0, np.round(values, EXACT_DIGITS)[self.at], np.nan)

    @cached_property
    def has(self) -> NDArray[np.bool_]:
        """[cells, methods]: whether the method has the cell."""
        return self.at >= 0

    def _pick(self, cells: NDArray[np.bool_], methods: NDArray[np.bool_]) -> "AccuracyMatrix":
        names = [name for name, keep in zip(self.methods, methods, strict=True) if keep]
        return replace(self, cells=self.cells[cells], methods=names, at=self.at[cells][:, methods])

    def over(self, cells: NDArray[np.bool_]) -> "AccuracyMatrix":
        """The part with these cells [cells], and the methods that have one of them."""
        return self._pick(cells, np.logical_or.reduce(self.has[cells], axis=0))

    def shared(self) -> "AccuracyMatrix":
        """The part with the methods in at least half of the cells, and the cells that all of these have."""
        compared = 2 * self.has.sum(axis=0) >= len(self.cells)
        return self._pick(np.logical_and.reduce(self.has[:, compared], axis=1), compared)

    def resampled(self, method: int, groups: NDArray[np.int64]) -> NDArray[np.float32]:
        """Draw bootstrap samples of the seeds of each group.

        A group is drawn once, even if it stands in several cells. Its draws depend only on the name of the
        method and its groups.

        Args:
            method: Its position.
            groups: [G], groups of the method.

        Returns:
            [G, most seeds, SEED_RESAMPLES]: the part of each sample that is each seed.
        """
        drawn, counts = self._drawn[method]
        where = np.searchsorted(drawn, groups)
        n = np.isfinite(self.seeds[groups]).sum(axis=1)
        return counts[where] / n[:, None, None].astype(np.float32)

    @cached_property
    def _drawn(self) -> "_Draws":
        return _Draws(self)


class _Draws(dict[int, tuple[NDArray[np.int64], NDArray[np.unsignedinteger[Any]]]]):
    """By method, computed when first used: its groups [G] in order, and how often each seed is drawn."""

    def __init__(self, of: AccuracyMatrix) -> None:
        self._of = of

    def __missing__(self, method: int) -> tuple[NDArray[np.int64], NDArray[np.unsignedinteger[Any]]]:
        seeds = self._of.seeds
        groups = np.setdiff1d(self._of.at[:, method], [-1])
        known = np.isfinite(seeds[groups]).sum(axis=1)
        rng = np.random.default_rng(zlib.crc32(self._of.methods[method].encode()))
        kind = np.min_scalar_type(seeds.shape[1])  # one byte, unless there are very many
        counts = np.zeros((len(groups), seeds.shape[1], SEED_RESAMPLES), kind)
        for n in np.unique(known):
            chosen = rng.integers(n, size=(int((known == n).sum()), n, SEED_RESAMPLES), dtype=kind)
            for seed in range(n):
                counts[known == n, seed] = (chosen == seed).sum(axis=1)
        self[method] = groups, counts
        return self[method]


def accuracy_matrix(flat: pd.DataFrame, summary: pd.DataFrame) -> AccuracyMatrix:
    """Arrange accuracies by cell and method.

    A method that needs no network takes part in the cells of every distillation architecture.

    Args:
        flat: A row per record.
        summary: `aggregate.summary_frame` of it.
    """
    groups = summary[~summary["exempt"]].reset_index(drop=True)
    placed = _placed(groups.assign(group=groups.index))
    cells = placed[COMPARED_CELL].drop_duplicates().sort_values(COMPARED_CELL).reset_index(drop=True)
    placed = placed.merge(cells.assign(cell=cells.index), on=COMPARED_CELL)
    methods = sorted(placed["method"].unique())
    at = np.full((len(cells), len(methods)), -1)
    at[placed["cell"], pd.Index(methods).get_indexer(placed["method"])] = placed["group"]
    mean, low, high = groups[["accuracy_mean", "accuracy_ci_low", "accuracy_ci_high"]].to_numpy(float).T
    return AccuracyMatrix(cells, methods, at, mean, low, high, _seeds(flat, groups))


def _placed(groups: pd.DataFrame) -> pd.DataFrame:
    """A row per group and cell in which it takes part."""
    place = [name for name in COMPARED_CELL if name != "distill_arch"]
    free = groups["distill_arch"] == "any"
    sources = groups.loc[~free, [*place, "distill_arch"]].drop_duplicates()
    beside = groups[free].drop(columns="distill_arch").merge(sources, on=place, how="left")
    rows = pd.concat([groups[~free], beside.fillna({"distill_arch": "any"})])
    return rows.drop_duplicates(["method", *COMPARED_CELL])  # a method with and without a network: with it


def _seeds(flat: pd.DataFrame, groups: pd.DataFrame) -> Floats:
    """[groups, most seeds]: accuracies in ascending order, then NaN."""
    rows = deduplicate(flat)[[*CELL, "accuracy"]].merge(groups[CELL].assign(group=groups.index), on=CELL)
    rows = rows.sort_values(["group", "accuracy"])  # draws must not depend on the order of the seeds
    position = rows.groupby("group").cumcount()
    seeds = np.full((len(groups), 1 + position.max() if len(rows) else 1), np.nan)
    seeds[rows["group"], position] = rows["accuracy"].round(EXACT_DIGITS)
    return seeds


def by_protocol(whole: AccuracyMatrix) -> dict[str, AccuracyMatrix]:
    """The part of each protocol under which several methods compete."""
    protocols = whole.cells["protocol"].to_numpy()
    parts = {str(name): whole.over(protocols == name) for name in sorted(set(protocols))}
    return {name: part for name, part in parts.items() if len(part.methods) > 1}


# --- one method over cells ----------------------------------------------------------------------------------


def over_budget(summary: pd.DataFrame, compared: AccuracyMatrix) -> set[str]:
    """The methods that store more than their ipc allows, on some data set and protocol of the matrix."""
    rows = summary.merge(compared.cells[["dataset", "protocol"]].drop_duplicates())
    return set(rows.loc[~rows["exempt"] & ~rows["within_budget"], "method"])


def standings(compared: AccuracyMatrix, over: Collection[str] = ()) -> pd.DataFrame:
    """Compare the methods of a matrix over the cells that they share.

    Args:
        compared: One row per cell, one column per method.
        over: Methods that exceed their budget somewhere: they are listed and ranked, but never the best.

    Returns:
        A row per method, the best first: `iqm`, the interquartile mean over the shared cells, with its
        interval; `mean_rank`; `own_cells`, those of the method; `n_cells`, those that are shared; `cells`,
        all of the matrix; `over_budget`; `best`, ties included. A method in fewer than half of the cells is
        not compared: its numbers are NaN.
    """
    part = compared.shared()
    ranks = _ranks(part).mean(axis=0) if len(part.cells) else np.full(len(part.methods), np.nan)
    rows = {name: (*_iqm(part, j), ranks[j]) for j, name in enumerate(part.methods) if len(part.cells)}
    empty = (np.nan,) * 4
    table = pd.DataFrame(
        [(name, *rows.get(name, empty)) for name in compared.methods],
        columns=["method", "iqm", "iqm_ci_low", "iqm_ci_high", "mean_rank"],
    )
    table = table.assign(
        own_cells=compared.has.sum(axis=0), n_cells=len(part.cells), cells=len(compared.cells)
    )
    table["over_budget"] = table["method"].isin(list(over))
    bounds = table[["iqm", "iqm_ci_low", "iqm_ci_high"]].where(~table["over_budget"])
    table["best"] = tied_with_best(*bounds.to_numpy(float).T)
    return table.sort_values(["iqm", "method"], ascending=[False, True]).reset_index(drop=True)


def _iqm(part: AccuracyMatrix, method: int) -> tuple[float, float, float]:
    """Interquartile mean over the cells, and its 95 % stratified bootstrap interval over seeds."""
    point = float(stats.trim_mean(part.means[:, method], TRIM))
    groups = part.at[:, method]
    if not _certain(part, groups):
        return point, np.nan, np.nan
    drawn = np.einsum("gsb,gs->bg", part.resampled(method, groups), np.nan_to_num(part.seeds[groups]))
    return point, *_percentiles(stats.trim_mean(drawn, TRIM, axis=1))


def _certain(part: AccuracyMatrix, groups: NDArray[np.int64]) -> bool:
    """Whether every group has the seeds that an interval needs."""
    return bool((np.isfinite(part.seeds[groups]).sum(axis=1) >= LEAST_SEEDS).all())


def _percentiles(drawn: Any) -> tuple[float, float]:
    """The ends of the 95 % interval of bootstrap estimates."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def _ranks(part: AccuracyMatrix) -> Floats:
    """[cells, methods]: ranks in each cell, tied where intervals overlap; NaN where missing."""
    rank = tied_ranks(*(part._where_known(values) for values in (part.mean, part.low, part.high)))
    return np.where(part.has, rank, np.nan)


# --- two methods over cells ---------------------------------------------------------------------------------


def test_pairs(compared: AccuracyMatrix, names: Sequence[str]) -> pd.DataFrame:
    """Test each pair of methods over the cells that both have.

    Args:
        compared: The matrix.
        names: Of the methods, in the order of the pairs.

    Returns:
        A row per pair. `difference`: mean over cells of `first` - `second`. `p`: two-sided, of Wilcoxon's
        signed-rank test over cells; `p_holm`: with Holm's correction for all pairs. NaN where the two share
        no cell.
    """
    order = [compared.methods.index(name) for name in names]
    found = [_differences(compared, i, j) for i, j in combinations(order, 2)]
    table = pd.DataFrame(combinations(names, 2), columns=["first", "second"])
    table["n_cells"] = np.array([len(d) for d in found], int)
    table["difference"] = [d.mean() if len(d) else np.nan for d in found]
    table["p"] = wilcoxon(found)
    return table.assign(p_holm=holm(table["p"].to_numpy(float)))


def compare_pairs(compared: AccuracyMatrix, names: Sequence[str]) -> pd.DataFrame:
    """As `test_pairs`, with the probability of improvement.

    Args:
        compared: The matrix.
        names: Of the methods, in the order of the pairs.

    Returns:
        Three more columns. `improvement`: the probability that a seed of `first` beats one of `second`, mean
        over cells; `ci_low` and `ci_high`: its 95 % stratified bootstrap interval over seeds.
    """
    order = [compared.methods.index(name) for name in names]
    won = [_improvement(compared, i, j) for i, j in combinations(order, 2)]
    table = test_pairs(compared, names)
    table[["improvement", "ci_low", "ci_high"]] = np.array(won, float).reshape(-1, 3)
    return table


def _groups(compared: AccuracyMatrix, i: int, j: int) -> NDArray[np.int64]:
    """[2, cells]: the groups of two methods in the cells that both have.

    Two methods that need no network have the same groups for every distillation architecture: one cell.
    """
    both = compared.has[:, i] & compared.has[:, j]
    return np.unique(compared.at[both][:, [i, j]], axis=0).reshape(-1, 2).T


def _differences(compared: AccuracyMatrix, i: int, j: int) -> Floats:
    x, y = _groups(compared, i, j)
    return np.round(compared.mean[x] - compared.mean[y], EXACT_DIGITS)


def wilcoxon(samples: Sequence[Floats]) -> Floats:
    """Two-sided p-values of Wilcoxon's signed-rank test.

    Args:
        samples: The differences [n] of each test.

    Returns:
        [len(samples)]: 1 where all differences are zero, NaN where there is none.
    """
    p = np.array([np.nan if not len(d) else 1.0 for d in samples])
    ties = [len(np.unique(np.abs(d))) < len(d) or not d.all() for d in samples]
    alike: dict[tuple[int, bool], list[int]] = defaultdict(list)  # one call to scipy for many
    for k, d in enumerate(samples):
        if d.any():
            alike[len(d), ties[k]].append(k)
    for (n, tied), which in alike.items():
        chosen = np.array([samples[k] for k in which])
        few = tied and n <= ENUMERATED
        p[which] = [_exact(d) for d in chosen] if few else stats.wilcoxon(chosen, axis=1).pvalue
    return p


def _exact(differences: Floats) -> float:
    """The same for few differences with ties: enumerate all signs, for which scipy takes half a second."""
    differences = differences[differences != 0]
    ranks = stats.rankdata(np.abs(differences))
    sums = ranks @ np.indices((2,) * len(ranks)).reshape(len(ranks), -1)
    seen = ranks[differences > 0].sum()
    return min(1.0, 2 * min(float((sums <= seen).mean()), float((sums >= seen).mean())))


def _improvement(compared: AccuracyMatrix, i: int, j: int) -> tuple[float, float, float]:
    """P(first > second) over all pairs of seeds, ties count half, mean over cells; and its interval."""
    x, y = _groups(compared, i, j)
    if not len(x):
        return np.nan, np.nan, np.nan
    mine, theirs = compared.seeds[x][:, :, None], compared.seeds[y][:, None, :]
    won = (mine > theirs) + 0.5 * (mine == theirs)  # [cells, mine, theirs]; comparisons with NaN are false
    known = np.isfinite(mine) & np.isfinite(theirs)
    point = float((won.sum(axis=(1, 2)) / known.sum(axis=(1, 2))).mean())
    if not (_certain(compared, x) and _certain(compared, y)):
        return point, np.nan, np.nan
    weighted = won.astype(np.float32).swapaxes(1, 2) @ compared.resampled(i, x)  # [cells, theirs, draws]
    weighted *= compared.resampled(j, y)
    return point, *_percentiles(weighted.sum(axis=1).mean(axis=0))


def holm(p: Floats) -> Floats:
    """Holm's step-down correction of p-values [N], for those that are not NaN."""
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    corrected = np.full(len(p), np.nan)
    corrected[order] = np.maximum.accumulate(np.arange(len(order), 0, -1) * p[order]).clip(max=1)
    return corrected


# --- all methods of the shared cells, for a critical-difference diagram -------------------------------------


def average_ranks(part: AccuracyMatrix) -> pd.Series:
    """Rank methods by their means in each cell, equal ones sharing a rank.

    Args:
        part: A matrix whose methods have all cells.

    Returns:
        The mean rank by method, the best first.
    """
    rank = stats.rankdata(-part.means, axis=1).mean(axis=0)
    return pd.Series(rank, index=part.methods).sort_index().sort_values(kind="stable")


def cliques(names: list[str], compared: pd.DataFrame) -> list[tuple[int, int]]:
    """Find the bars of a critical-difference diagram.

    Args:
        names: Of the methods, in the order of their ranks.
        compared: The pairs of them, from `test_pairs`.

    Returns:
        Positions (first, last) of the longest runs of names in which no pair differs significantly.
    """
    apart = compared[compared["p_holm"] < SIGNIFICANCE]
    different = {frozenset(pair) for pair in zip(apart["first"], apart["second"], strict=True)}

    def alike(first: int, last: int) -> bool:
        return all(frozenset(pair) not in different for pair in combinations(names[first : last + 1], 2))

    runs = [max(j for j in range(i, len(names)) if alike(i, j)) for i in range(len(names))]
    return [(i, j) for i, j in enumerate(runs) if j > i and (i == 0 or runs[i - 1] < j)]
