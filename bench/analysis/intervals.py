"""Bootstrap intervals of many cells at once, equal to `scipy.stats.bootstrap` for each cell to the last bit.

The statistic is a function of the means of groups of seeds. Up to rounding, a mean does not depend on the
order in which its seeds are drawn: three seeds have 27 resamples, but only 10 different sets, and three
groups of three seeds have 1000 combinations of sets in place of 9999 draws. A kind is all draws of one
combination.

1. `_draws`: make scipy's draws and group them into kinds. This depends on the sizes of the groups only.
2. `_Distribution`: for each cell, make one estimate per kind and sort them. Ranks follow from the number of
   draws of each kind.
3. Rounding changes the last digits within a kind. So near a rank that is needed, and only there, each draw is
   evaluated by itself.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from bench.records.groups import Floats, Ints, Ragged, equal_groups

CONFIDENCE = 0.95
LEAST_SEEDS = 3  # below this a spread is shown but no interval is claimed
MEAN_RESAMPLES = 9999
ROUNDING = 1e-9  # relative difference, far more than the order of the seeds can cause
ESTIMATES_AT_ONCE = 2**17  # estimates in memory at a time

Combine = Callable[..., Any]  # the statistic: a mean of each group (arrays that broadcast) -> the estimate


def only_mean(only: Any) -> Any:
    """The statistic that is the mean of one group."""
    return only


def one_by_one(function: Combine, *columns: Floats) -> Floats:
    """Apply a function number by number, as scipy does: on arrays the last bit of a power may differ."""
    return np.array([function(*numbers) for numbers in zip(*columns, strict=True)], dtype=np.float64)


def intervals(*groups: Ragged, combine: Combine = only_mean) -> Floats:
    """95 % bootstrap intervals (BCa) of a statistic of groups of seeds that are drawn independently.

    Args:
        *groups: Each with the values of K cells.
        combine: The statistic, a function of the mean of each group.

    Returns:
        [K,2], the ends: NaN where a group has fewer than three values, the statistic itself where all groups
        are constant, those by percentiles where BCa is undefined.

    References:
        Efron and Tibshirani, An introduction to the bootstrap, 1993, section 14.3.
    """
    found = np.full((len(groups[0].sizes), 2), np.nan)
    for cells, samples in equal_groups(*groups):
        if min(sample.shape[1] for sample in samples) < LEAST_SEEDS:
            continue
        samples = [np.sort(sample, axis=1) for sample in samples]  # draws must not depend on the seeds' order
        draws = _draws(tuple(sample.shape[1] for sample in samples))
        for part in np.array_split(
            np.arange(len(cells)), math.ceil(len(cells) * len(draws.drawn) / ESTIMATES_AT_ONCE)
        ):
            found[cells[part]] = _intervals([sample[part] for sample in samples], combine, draws)
    return found


# --- the draws ----------------------------------------------------------------------------------------------


class _Draws(NamedTuple):
    """scipy's draws, grouped into kinds: a kind has the same seeds in any order."""

    resamples: list[Ints]  # by group: [R,n], the different rows of indices that are drawn from it
    some: list[Ints]  # by group: one resample of each set of seeds
    rows: list[Ints]  # by group: [U], the resample of each different draw, sorted by kind
    counts: Ints  # [U]: how often each different draw occurs
    first: Ints  # [kinds + 1]: the first draw of each kind, and the end of the last
    drawn: Ints  # [kinds]: how many draws are of each kind

    @property
    def product(self) -> bool:
        """Whether kinds are all combinations of sets of seeds; else each different draw is a kind."""
        return len(self.drawn) == math.prod(map(len, self.some))

    def roughly(self, means: list[Floats], combine: Combine) -> Floats:
        """Estimate one draw of each kind, from the means [K,R] of the resamples of each group: [K,kinds]."""
        if not self.product:
            return combine(*(np.take(m, row, axis=1) for m, row in zip(means, self.rows, strict=True)))
        dims = np.eye(len(means), dtype=int) * (np.array([*map(len, self.some)]) - 1) + 1
        few = zip(means, self.some, dims, strict=True)
        return combine(*(m[:, some].reshape(-1, *dim) for m, some, dim in few)).reshape(len(means[0]), -1)


@cache
def _draws(sizes: tuple[int, ...]) -> _Draws:
    """The draws of groups of these sizes, from the generator that `aggregate.interval` gives to scipy."""
    rng = np.random.default_rng(0)
    resamples, some, rows, sets = [], [], [], []
    for n in sizes:
        found, which = np.unique(rng.integers(0, n, (MEAN_RESAMPLES, n)), axis=0, return_inverse=True)
        _, one, kind = np.unique(np.sort(found, axis=1), axis=0, return_index=True, return_inverse=True)
        resamples.append(found)
        some.append(one)
        rows.append(which.ravel())
        sets.append(kind.ravel()[which.ravel()])
    shape = tuple(map(len, some))
    few = math.prod(shape) <= MEAN_RESAMPLES
    kinds = np.ravel_multi_index(sets, shape) if few else np.unique(rows, axis=1, return_inverse=True)[1]
    (kind, *rows), counts = np.unique(np.stack([kinds.ravel(), *rows]), axis=1, return_counts=True)
    first = np.searchsorted(kind, np.arange((math.prod(shape) if few else len(kind)) + 1))
    return _Draws(resamples, some, rows, counts, first, np.diff(np.append(0, np.cumsum(counts))[first]))


def _spread_out(begin: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Expand ranges: the range that each number belongs to, and the numbers one after the other."""
    sizes = end - begin
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return owner, np.arange(len(owner)) + (begin - np.cumsum(sizes) + sizes)[owner]


class _Distribution:
    """The draws of some cells in ascending order of their estimates, exact only where it matters."""

    def __init__(self, samples: list[Floats], combine: Combine, draws: _Draws) -> None:
        self.draws, self.combine = draws, combine
        taken = zip(samples, draws.resamples, strict=True)
        self.means = [np.take(sample, rows, axis=1).mean(-1) for sample, rows in taken]
        rough = draws.roughly(self.means, combine)
        self.order = np.argsort(rough, axis=1)
        self.rough = np.take_along_axis(rough, self.order, axis=1)
        # [positions + 1]: the draws before each position, cells one after the other
        self.before = np.append(0, np.cumsum(draws.drawn[self.order]))
        largest = np.max([np.abs(m).max(axis=1) for m in (*samples, rough)], axis=0)
        self.same = ROUNDING * largest[:, None]  # estimates closer than this may be in the wrong order
        apart = np.ones(rough.shape, dtype=bool)
        np.greater(np.diff(self.rough, axis=1), self.same, out=apart[:, 1:])
        # the first position of each run of such estimates, and the end
        self.runs = np.append(np.flatnonzero(apart), rough.size)

    def _exactly(self, begin: Ints, end: Ints) -> tuple[Ints, Floats, Ints]:
        """Evaluate each draw in some ranges of positions: its range, its estimate, how often it occurs."""
        owner, position = _spread_out(begin, end)
        cell, kind = position // self.order.shape[1], self.order.ravel()[position]
        which, row = _spread_out(self.draws.first[kind], self.draws.first[kind + 1])
        pairs = zip(self.means, self.draws.rows, strict=True)
        return owner[which], self.combine(*(m[cell[which], r[row]] for m, r in pairs)), self.draws.counts[row]

    def below(self, point: Floats) -> Floats:
        """The share of draws below the point [K] of each cell; those equal to it count half."""
        start = np.arange(len(point)) * self.order.shape[1]
        begin = start + (self.rough < point[:, None] - self.same).sum(axis=1)
        end = start + (self.rough <= point[:, None] + self.same).sum(axis=1)
        owner, estimates, counts = self._exactly(begin, end)
        twice = counts * np.add(estimates < point[owner], estimates <= point[owner], dtype=int)
        near = np.bincount(owner, twice, minlength=len(point))
        return (2 * (self.before[begin] - self.before[start]) + near) / (2 * MEAN_RESAMPLES)

    def at(self, ranks: Floats) -> Floats:
        """The estimates at these ranks [K,m], counted from 0."""
        within = np.clip(ranks, 0, MEAN_RESAMPLES - 1).astype(int)
        wanted = (within + MEAN_RESAMPLES * np.arange(len(ranks))[:, None]).ravel()
        run = np.searchsorted(self.runs, np.searchsorted(self.before, wanted, side="right") - 1, side="right")
        begin, end = self.runs[run - 1], self.runs[run]
        owner, estimates, counts = self._exactly(begin, end)
        order = np.lexsort((estimates, owner))
        in_run = self.before[end] - self.before[begin]
        wanted += np.cumsum(in_run) - in_run - self.before[begin]
        found = np.searchsorted(np.cumsum(counts[order]), wanted, side="right")
        return estimates[order][found].reshape(ranks.shape)


# --- cells with groups of the same sizes --------------------------------------------------------------------


def _intervals(samples: list[Floats], combine: Combine, draws: _Draws) -> Floats:
    """Intervals [K,2] of cells from their sorted values [K,n] in each group."""
    drawn = _Distribution(samples, combine, draws)
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = _bca(samples, combine, drawn)
    tail = (1 - CONFIDENCE) / 2
    ends[~np.isfinite(ends).all(axis=1)] = tail, 1 - tail
    where = ends * MEAN_RESAMPLES + (1 - ends)  # scipy's and numpy's linear quantile
    rank, part = where // 1 - 1, where % 1
    part[rank < 0] = 0
    found = (1 - part) * drawn.at(rank) + part * drawn.at(rank + 1)
    constant = np.all([sample[:, 0] == sample[:, -1] for sample in samples], axis=0)
    found[constant] = combine(*(sample[constant, 0] for sample in samples))[:, None]
    found[np.any([np.isnan(sample).any(axis=1) for sample in samples], axis=0)] = np.nan
    return found


def _bca(samples: list[Floats], combine: Combine, drawn: _Distribution) -> Floats:
    """The quantiles of the draws that are the ends of the intervals: [K,2]."""
    means = [sample.mean(-1) for sample in samples]
    bias = ndtri(drawn.below(one_by_one(combine, *means)))[:, None]
    cubes, squares = np.zeros(len(bias)), np.zeros(len(bias))
    for j, sample in enumerate(samples):
        n = sample.shape[1]
        left = np.take(sample, [[i for i in range(n) if i != out] for out in range(n)], axis=1).mean(-1)
        estimates = combine(*(left if i == j else mean[:, None] for i, mean in enumerate(means)))
        influence = (n - 1) * (estimates.mean(-1, keepdims=True) - estimates)
        cubes += (influence**3).sum(-1) / float(n) ** 3
        squares += (influence**2).sum(-1) / float(n) ** 2
    acceleration = (1 / 6 * cubes / one_by_one(lambda number: number**1.5, squares))[:, None]
    ends = bias + ndtri((1 - CONFIDENCE) / 2) * np.array([1, -1])
    return ndtr(bias + ends / (1 - acceleration * ends))
