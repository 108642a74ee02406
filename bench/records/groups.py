"""Groups of different sizes, one after the other in one array: what is done with many groups at once."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Ragged(NamedTuple):
    """A group of numbers for each of many cells."""

    values: Floats  # of all cells, one after the other
    sizes: Ints  # how many of them each cell has


def ragged(groups: Sequence[Sequence[float]]) -> Ragged:
    """A group for each cell."""
    sizes = np.fromiter(map(len, groups), dtype=np.int64, count=len(groups))
    return Ragged(np.array([value for group in groups for value in group], dtype=np.float64), sizes)


def equal_groups(*groups: Ragged) -> Iterator[tuple[Ints, list[Floats]]]:
    """Which cells have groups of the same sizes n, and the values [K,n] of each group."""
    starts = [np.cumsum(group.sizes) - group.sizes for group in groups]
    shapes, which = np.unique(np.stack([group.sizes for group in groups]), axis=1, return_inverse=True)
    for i, shape in enumerate(shapes.T):
        cells = np.flatnonzero(which.ravel() == i)
        taken = zip(groups, starts, shape, strict=True)
        yield cells, [group.values[start[cells, None] + np.arange(n)] for group, start, n in taken]


def group_means(group: Ragged) -> Floats:
    """Of each cell, to the bit that of numpy; NaN of nothing."""
    found = np.full(len(group.sizes), np.nan)
    for cells, (values,) in equal_groups(group):
        if values.size:
            found[cells] = values.mean(-1)
    return found


def without_missing(group: Ragged) -> Ragged:
    """Without what is missing."""
    there = ~np.isnan(group.values)
    part = np.repeat(np.arange(len(group.sizes)), group.sizes)
    return Ragged(group.values[there], np.bincount(part[there], minlength=len(group.sizes)))
