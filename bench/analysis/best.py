"""Which results are the best, and how they rank: the only module where this is decided. No torch.

One test for all pairs of a group. Two results are told apart where the difference of their means, divided by
its standard error, exceeds what the largest of all pairs reaches in 95 % of draws in which all results are
equal. So of groups of equal results about one in twenty tells anybody apart, however many results it has:
fewer where spreads are alike, up to 7 % where three seeds have very different ones.

* The standard error is from moderated variances (`intervals.moderated`): methods of similar spread lend each
  other seeds, a noisy one (random real images) does not blur the others.
* The draws are normal, of as many seeds as each result has. Each has a variance halfway, on a log scale,
  between its own and the moderated one: with the moderated alone noisy methods would be told apart too often,
  with its own alone nothing would be.

From that: `rank` to `rank_to`, all places that a result may have (1 + those told apart above it, to N - those
below it), and `best`, the results that are not told apart from a better one: rank 1. Tables, page and plots
read these.

`tests/helpers/separation.py` measures it: how often equal results are told apart, and which differences are
seen.

References:
    Westfall and Young, Resampling-based multiple testing, 1993: the largest statistic, resampled.
    Smyth, SAGMB 3, 2004: moderated variances.
    Mogstad et al., Inference for ranks, Review of Economic Studies 91, 2024: ranks as ranges.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.analysis.intervals import EXACT_DIGITS, floored, moderated
from bench.records.columns import Floats

BEST_OF: Final = ["dataset", "protocol", "ipc", "eval_arch"]  # what is ranked together
RANKED: Final = ["competes", "rank", "rank_to", "best", "least_difference"]
SIGNIFICANCE = 0.05
DRAWS = 1000
PAIRS_AT_ONCE = 2**20  # pairs of drawn results in memory at a time


@dataclass(frozen=True)
class Separation:
    """Which of N results are told apart.

    Attributes:
        above: [N,N], whether the first has the higher mean and is told apart from the second.
        least_difference: A difference that would have been told, the median over pairs; NaN without seeds to
            tell.
    """

    above: NDArray[np.bool_]
    least_difference: float

    @property
    def rank(self) -> NDArray[np.int64]:
        """[N]: the best place that a result may have."""
        return 1 + self.above.sum(axis=0)

    @property
    def rank_to(self) -> NDArray[np.int64]:
        """[N]: the last place that a result may have."""
        return len(self.above) - self.above.sum(axis=1)


def separate(mean: Floats, variance: Floats, seeds: Floats, freedom: Floats) -> Separation | None:
    """Test all pairs of results.

    Args:
        mean: [N].
        variance: [N], of one seed. NaN where `freedom` is 0.
        seeds: [N]: the variance of a mean is `variance / seeds`.
        freedom: [N], degrees of freedom of `variance`; 0 for a single seed.

    Returns:
        None if no result has two seeds: nothing can be told. Without any spread the means decide.
    """
    if not (freedom > 0).any():
        return None
    mean = np.round(mean, EXACT_DIGITS)
    higher = mean[:, None] > mean
    own = _own_variance(variance, freedom)
    if not own.any():
        return Separation(higher, 0.0)
    together, _ = moderated(own, freedom)
    error = np.sqrt(together / seeds + (together / seeds)[:, None])
    least = _critical(own, together, seeds, freedom) * error
    pairs = least[np.triu_indices(len(mean), 1)]
    told = higher & (mean[:, None] - mean > least)
    return Separation(told, float(np.median(pairs)) if len(pairs) else np.nan)


def _own_variance(variance: Floats, freedom: Floats) -> Floats:
    """The variances that are known, of equal numbers zero and not the rounding of sums; 0 where unknown."""
    return floored(np.where(freedom > 0, np.round(variance, 2 * EXACT_DIGITS), 0))


def _critical(own: Floats, together: Floats, seeds: Floats, freedom: Floats) -> float:
    """The 95 % quantile of the largest statistic of all pairs where all means are equal.

    Args:
        own: [N], variances of one seed, 0 where unknown.
        together: [N], the same, moderated.
        seeds: [N].
        freedom: [N], degrees of freedom of `own`.
    """
    variance = np.where(freedom > 0, np.sqrt(own * together), together)
    normal, spread = _draws(tuple(freedom.tolist()))
    mean = normal * np.sqrt(variance / seeds)
    found, _ = moderated(np.where(freedom > 0, variance * spread, variance), freedom)
    first, second = np.triu_indices(len(own), 1)
    if not len(first):
        return np.nan
    largest = [
        (np.abs(m[:, first] - m[:, second]) / np.sqrt(v[:, first] + v[:, second])).max(axis=1)
        for m, v in zip(_parts(mean, len(first)), _parts(found / seeds, len(first)), strict=True)
    ]
    return float(np.quantile(np.concatenate(largest), 1 - SIGNIFICANCE))


def _parts(drawn: Floats, pairs: int) -> list[Floats]:
    return np.array_split(drawn, 1 + len(drawn) * pairs // PAIRS_AT_ONCE)


@lru_cache(maxsize=64)
def _draws(freedom: tuple[float, ...]) -> tuple[Floats, Floats]:
    """[DRAWS,N] each: standard normal means, and sample variances of variance 1 (1 where there is none)."""
    rng = np.random.default_rng(0)
    degrees = np.array(freedom)
    normal = rng.standard_normal((DRAWS, len(degrees)))
    drawn = rng.chisquare(np.maximum(degrees, 1), (DRAWS, len(degrees)))
    return normal, np.where(degrees > 0, drawn / np.maximum(degrees, 1), 1.0)


def rank_cells(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the columns `RANKED` to rows of a summary.

    Args:
        rows: One row per method, data set, ipc, architectures and protocol; those that agree in `BEST_OF` are
            ranked together.

    Returns:
        The rows with five more columns. `competes`: the method fits its budget and is not exempt. `rank` and
        `rank_to`: the places that it may have, NA for what does not compete and where nobody has two seeds.
        `best`: rank 1. `least_difference`: a fraction, as in `Separation`.
    """
    competes = (rows["within_budget"] & ~rows["exempt"]).to_numpy(bool)
    ranks = np.full((len(rows), 2), np.nan)
    least = np.full(len(rows), np.nan)
    numbers = rows[["accuracy_mean", "accuracy_std", "n_seeds"]].to_numpy(float)
    cell = rows.groupby(BEST_OF, dropna=False).ngroup().to_numpy()
    fair = np.flatnonzero(competes)
    together = fair[np.argsort(cell[fair], kind="stable")]
    for where in np.split(together, np.flatnonzero(np.diff(cell[together])) + 1):
        if len(where) and (found := separate_rows(numbers[where])) is not None:
            ranks[where] = np.stack([found.rank, found.rank_to], axis=1)
            least[where] = found.least_difference
    rank, rank_to = (pd.array(column, dtype="Float64").astype("Int64") for column in ranks.T)
    return rows.assign(
        competes=competes, rank=rank, rank_to=rank_to, best=ranks[:, 0] == 1, least_difference=least
    )


def separate_rows(numbers: Floats, seeds: int | None = None) -> Separation | None:
    """`separate` for rows of a summary.

    Args:
        numbers: [N,3]: mean, standard deviation and number of seeds of each.
        seeds: As if each had so many, with the deviations that they have: what more seeds could tell.
    """
    mean, deviation, n = numbers.T
    if seeds is None:
        return separate(mean, np.square(deviation), n, n - 1)
    own, count = _own_variance(np.square(deviation), n - 1), np.full(len(n), float(seeds))
    return separate(mean, moderated(own, n - 1)[0] if own.any() else own, count, count - 1)
