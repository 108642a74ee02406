"""Which results are the best, and how results rank: the only module where this is decided. No torch.

A result is a mean over distillation seeds (or over cells) with its 95 % interval. Two rules are in use:

* `tied_with_best`: what tables set in bold. The best mean, and every result whose interval overlaps its own.
* `tied_ranks`: rank 1 + the number of results whose interval lies above the result's own.

They can disagree: a result may overlap a best one with a wide interval (bold) while the narrow interval of a
third one lies above it (rank 2). They are applied to different sets of results:

* The summary and the table at equal storage: all methods within their budget, by `BEST_OF`. Where two of them
  have exactly the same mean, the summary compares the others with the interval of the one that it lists first
  (`summary_best`), the table at equal storage with the higher interval (`best`).
* The table of compositions: as at equal storage, but only compositions.
* The standings: interquartile means, methods over their budget in some cell left out. The mean rank beside
  them is over the cells of the accuracy matrix, which keep distillation architectures apart, and counts
  methods over their budget.
"""

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.records.groups import Floats

BEST_OF: Final = ["dataset", "protocol", "ipc", "eval_arch"]  # what is ranked together
ACCURACY_BOUNDS: Final = ["accuracy_mean", "accuracy_ci_low", "accuracy_ci_high"]
EXACT_DIGITS = 12  # accuracies are equal if they agree in these decimals: the rest is rounding of sums


def tied_with_best(
    mean: Floats, low: Floats, high: Floats, *, first_of_equals: bool = False
) -> NDArray[np.bool_]:
    """Mark the best of these results and those whose interval overlaps its interval.

    Without intervals only equal means are ties.

    Args:
        mean: [N] fractions; NaN is never the best.
        low: [N] lower ends of the intervals; NaN where there is none.
        high: [N] upper ends.
        first_of_equals: Of several results with the best mean, take the interval of the first one; by default
            that of the one with the highest interval.

    Returns:
        [N], all false where no mean is known.
    """
    mean, low, high = (np.round(values, EXACT_DIGITS) for values in (mean, low, high))
    if np.isnan(mean).all():
        return np.zeros(len(mean), dtype=bool)
    ascending = np.lexsort(np.nan_to_num([high, low, mean], nan=-1))  # -1: no fraction is as low
    best = np.nanargmax(mean) if first_of_equals else ascending[-1]
    overlap = (high >= low[best]) & (low <= high[best])  # false where one of them is NaN
    return (mean == mean[best]) | overlap & ~np.isnan(mean)


def tied_ranks(mean: Floats, low: Floats, high: Floats) -> Floats:
    """Rank results along the last axis: 1 + the number of those whose interval lies above the result's own.

    Where one of two results has no interval, their means decide.

    Args:
        mean: [..., N] fractions.
        low: [..., N] lower ends of the intervals; NaN where there is none.
        high: [..., N] upper ends.
    """
    mean, low, high = (np.round(values, EXACT_DIGITS) for values in (mean, low, high))
    mine, theirs = (np.s_[..., None, :], np.s_[..., :, None])
    certain = np.isfinite(low[mine]) & np.isfinite(low[theirs])
    above = np.where(certain, low[theirs] > high[mine], mean[theirs] > mean[mine])
    return 1.0 + above.sum(axis=-2)


def rank_cells(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the columns `competes`, `rank`, `best` and `summary_best` to rows of `aggregate.summary_frame`.

    Args:
        rows: One row per method, data set, ipc, architectures and protocol; those that agree in `BEST_OF` are
            ranked together.

    Returns:
        The rows with four more columns. `competes`: whether the method fits its budget and is not exempt. The
        others are about what competes, ties included: `rank` is NaN and `best` and `summary_best` are false
        for what does not.
    """
    competes = rows["within_budget"] & ~rows["exempt"]
    position = np.flatnonzero(competes)
    bounds = rows[ACCURACY_BOUNDS].to_numpy(float)
    rank = np.full(len(rows), np.nan)
    best, summary_best = np.zeros((2, len(rows)), dtype=bool)
    cell = rows[competes].groupby(BEST_OF, dropna=False).ngroup()
    for members in cell.groupby(cell.to_numpy()).indices.values():
        where = position[members]
        mean, low, high = bounds[where].T
        rank[where] = tied_ranks(mean, low, high)
        best[where] = tied_with_best(mean, low, high)
        summary_best[where] = tied_with_best(mean, low, high, first_of_equals=True)
    return rows.assign(competes=competes, rank=rank, best=best, summary_best=summary_best)
