"""Drawing training images class by class."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.core.errors import UserError
from bench.core.transfer import to_device


@dataclass(frozen=True, eq=False)
class ClassIndex:
    """The members of each class: those of class c are order[offsets[c]:offsets[c + 1]].

    All of it is on the host, whatever the device: which image comes next is never asked of the device.

    Args:
        order: indices of all images, class after class, int64 [N].
        offsets: where each class starts in `order`, int64 [K + 1].
    """

    order: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, labels: Tensor, n_classes: int) -> "ClassIndex":
        """Index labels int64 [N], of any device. Raises UserError if one is outside 0..n_classes-1."""
        labels = labels.cpu()
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


class ClassSampler:
    """Endless draws from all classes at once.

    Within a class, draws go through a permutation without replacement; when it cannot fill the next draw, a
    new permutation is made. A class with fewer than `per_class` members repeats its permutation. The draws
    depend on the generator alone, so they are the same on every device.

    Args:
        index: the members of each class.
        per_class: images per class and draw.
        generator: a CPU generator.
        device: where the indices go.

    Raises:
        UserError: a class is empty, or `per_class` is below 1.
    """

    def __init__(
        self,
        index: ClassIndex,
        per_class: int,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self._device = torch.device(device)
        self._counts = _counts_of(index, per_class)
        self._index, self._per_class, self._generator = index, per_class, generator
        self._columns = torch.arange(max(int(self._counts.max()), per_class))
        self._walk = torch.empty(len(self._counts), len(self._columns), dtype=torch.int64)
        self._cursor = self._counts.clone()  # nothing is left: the first draw shuffles

    def next(self) -> Tensor:
        """The next indices, int64 [K, per_class], on the device."""
        # a loop over the spent classes only: sorting a table of random keys was measured 3 to 6 times slower
        for c in (self._cursor + self._per_class > self._counts).nonzero().flatten().tolist():
            count = int(self._counts[c])
            self._walk[c] = torch.randperm(count, generator=self._generator)[self._columns % count]
            self._cursor[c] = 0
        drawn = self._walk.gather(1, self._cursor[:, None] + self._columns[: self._per_class])
        self._cursor += self._per_class
        return to_device(self._index.order[drawn + self._index.offsets[:-1, None]], self._device)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the permutations, the position in each, and the generator's state."""
        places = {"walk": self._walk.clone(), "cursor": self._cursor.clone()}
        return {**places, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue where `state_dict()` was taken."""
        self._walk.copy_(state["walk"])
        self._cursor.copy_(state["cursor"])
        self._generator.set_state(state["generator"].cpu())


def _counts_of(index: ClassIndex, per_class: int) -> Tensor:
    """Members per class, int64 [K], on the CPU. Raises UserError if a draw is impossible."""
    if per_class < 1:
        raise UserError(f"cannot draw {per_class} images per class: ask for at least 1")
    counts = index.counts
    empty = (counts == 0).nonzero().flatten().tolist()
    if empty:
        raise UserError(f"no images of class {empty[0]} to draw from: give every class at least one image")
    return counts
