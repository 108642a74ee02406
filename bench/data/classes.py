"""Drawing training images class by class."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.errors import UserError


@dataclass(frozen=True, eq=False)
class ClassIndex:
    """The members of each class: those of class c are order[offsets[c]:offsets[c + 1]].

    `order` is int64 [N], `offsets` int64 [K + 1], both on the device of the labels.
    """

    order: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, labels: Tensor, n_classes: int) -> "ClassIndex":
        """Index labels int64 [N]. Raises UserError where one is outside 0..n_classes-1."""
        if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) >= n_classes):
            raise UserError(
                f"labels run from {int(labels.min())} to {int(labels.max())}, but there are "
                f"{n_classes} classes: relabel them as 0..{n_classes - 1}"
            )
        counts = torch.bincount(labels, minlength=n_classes)
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return cls(torch.argsort(labels, stable=True), offsets)

    @property
    def counts(self) -> Tensor:
        """Members per class, int64 [K]."""
        return self.offsets.diff()

    def members(self, c: int) -> Tensor:
        """Indices of class c, int64, in data-set order."""
        return self.order[int(self.offsets[c]) : int(self.offsets[c + 1])]

    def sample(self, per_class: int, generator: torch.Generator) -> Tensor:
        """Draw indices int64 [K, per_class] on the device of `order`, with a CPU generator.

        Inside a class the draw is without replacement; a class of fewer than `per_class` members repeats
        its whole permutation. Costs O(K * largest class): for a draw at every step use ClassSampler.
        Raises UserError for an empty class.
        """
        counts = _counts_of(self, per_class)
        largest = int(counts.max())
        keys = torch.rand(len(counts), largest, generator=generator)
        keys.masked_fill_(torch.arange(largest) >= counts[:, None], -1.0)  # padding sorts last
        shuffled = keys.topk(min(per_class, largest)).indices
        picked = shuffled.gather(1, torch.arange(per_class) % counts[:, None])
        return self.order[(picked + self.offsets.cpu()[:-1, None]).to(self.order.device)]


class ClassSampler:
    """An endless walk over all classes: each keeps its own permutation and reshuffles at its end.

    Each epoch of a class visits each member once. A draw has no duplicate in a class of at least
    `per_class` members, also where it spans two epochs. The generator is a CPU one and the walk depends
    on nothing else, so it is the same on every device. Raises UserError for an empty class.
    """

    def __init__(self, index: ClassIndex, per_class: int, generator: torch.Generator) -> None:
        self._counts = _counts_of(index, per_class)
        self._order = index.order.cpu()
        self._offsets = index.offsets.cpu()[:-1, None]
        self._device = index.order.device
        self._per_class = per_class
        self._generator = generator
        # Row c holds the positions inside class c that it will give next, in columns start[c]..end[c]-1;
        # what lies beyond is padding. A refill leaves room for a rest and for what it appends.
        self._width = max(int(self._counts.max()), 2 * per_class)
        self._queue = torch.zeros(len(self._counts), per_class + self._width, dtype=torch.int64)
        self._start = torch.zeros_like(self._counts)
        self._end = torch.zeros_like(self._counts)
        self._columns = torch.arange(per_class)

    def next(self) -> Tensor:
        """The next indices, int64 [K, per_class], on the device of the index."""
        short = (self._end - self._start < self._per_class).nonzero().flatten()
        if len(short):
            self._refill(short)
        drawn = self._queue.gather(1, self._start[:, None] + self._columns)
        self._start += self._per_class
        return self._order[drawn + self._offsets].to(self._device)

    def _refill(self, rows: Tensor) -> None:
        """Move what is left of these classes [R] to the front, and append fresh epochs for a whole draw."""
        counts, rest = self._counts[rows], (self._end - self._start)[rows]
        columns = (self._start[rows, None] + self._columns).clamp(max=self._queue.shape[1] - 1)
        left = self._queue[rows].gather(1, columns)
        left = left.masked_fill(self._columns >= rest[:, None], 0)
        fresh = _defer(self._permutations(counts), left, rest, counts, self._per_class)
        # A class smaller than a draw needs several epochs.
        epochs = (self._per_class + counts - 1) // counts
        fresh = fresh.gather(1, torch.arange(self._width) % counts[:, None])
        self._queue[rows, : self._per_class] = left
        where = rest[:, None] + torch.arange(self._width)
        self._queue[rows] = self._queue[rows].scatter(1, where, fresh)
        self._start[rows], self._end[rows] = 0, rest + epochs * counts

    def _permutations(self, counts: Tensor) -> Tensor:
        """A permutation of 0..counts[r]-1 in each row, int64 [R, largest], zeros after it."""
        table = torch.zeros(len(counts), int(counts.max()), dtype=torch.int64)
        # A loop, because sorting a table of random keys was measured 3 to 6 times slower.
        for row, count in zip(table, counts.tolist(), strict=True):
            torch.randperm(count, generator=self._generator, out=row[:count])
        return table


def _defer(fresh: Tensor, left: Tensor, rest: Tensor, counts: Tensor, per_class: int) -> Tensor:
    """Reorder permutations `fresh` [R, M] so that a draw across the seam has no duplicate.

    The first rest[r] entries of left[r] are drawn together with the first per_class - rest[r] of fresh[r];
    the latter are chosen from what is not in the former. Otherwise the order is kept. A class of fewer than
    `per_class` members is left as it is.
    """
    in_rest = (torch.arange(left.shape[1]) < rest[:, None]) & (counts >= per_class)[:, None]
    used = torch.zeros_like(fresh).scatter_add_(1, left, in_rest.long())
    real = torch.arange(fresh.shape[1]) < counts[:, None]
    new = (used.gather(1, fresh) == 0) & real
    front = new & (new.cumsum(1) <= (per_class - rest)[:, None])
    after = front.sum(1, keepdim=True) + (~front).cumsum(1) - 1
    return torch.empty_like(fresh).scatter_(1, torch.where(front, front.cumsum(1) - 1, after), fresh)


def _counts_of(index: ClassIndex, per_class: int) -> Tensor:
    """Members per class, int64 [K], on the CPU. Raises UserError if a draw is impossible."""
    if per_class < 1:
        raise UserError(f"cannot draw {per_class} images per class: ask for at least 1")
    counts = index.counts.cpu()
    empty = (counts == 0).nonzero().flatten().tolist()
    if empty:
        raise UserError(f"no images of class {empty[0]} to draw from: give every class at least one image")
    return counts
