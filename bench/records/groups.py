"""Groups of different sizes in one array, and what is computed for many groups at once."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Ragged(NamedTuple):
    """A group of numbers for each cell, like the accuracies of each record."""

    values: Floats  # of all cells, one after the other
    sizes: Ints  # how many values each cell has


def ragged(groups: Sequence[Sequence[float]]) -> Ragged:
    """Put the groups, one for each cell, into one array."""
    sizes = np.fromiter(map(len, groups), dtype=np.int64, count=len(groups))
    return Ragged(np.array([value for group in groups for value in group], dtype=np.float64), sizes)


def equal_groups(*groups: Ragged) -> Iterator[tuple[Ints, list[Floats]]]:
    """Split the cells by the sizes of their groups.

    Args:
        groups: for the same cells each.

    Returns:
        For each combination of sizes: the indices of its K cells int64 [K], and for each of `groups` the
        values float64 [K,n].
    """
    starts = [np.cumsum(group.sizes) - group.sizes for group in groups]
    shapes, which = np.unique(np.stack([group.sizes for group in groups]), axis=1, return_inverse=True)
    for i, shape in enumerate(shapes.T):
        cells = np.flatnonzero(which.ravel() == i)
        taken = zip(groups, starts, shape, strict=True)
        yield cells, [group.values[start[cells, None] + np.arange(n)] for group, start, n in taken]


def group_means(group: Ragged) -> Floats:
    """The mean of each cell, equal to that of numpy to the last bit; NaN for an empty group."""
    found = np.full(len(group.sizes), np.nan)
    for cells, (values,) in equal_groups(group):
        if values.size:
            found[cells] = values.mean(-1)
    return found


def without_missing(group: Ragged) -> Ragged:
    """The same groups without their NaNs."""
    known = ~np.isnan(group.values)
    cell = np.repeat(np.arange(len(group.sizes)), group.sizes)
    return Ragged(group.values[known], np.bincount(cell[known], minlength=len(group.sizes)))
