"""Batches of shuffled images: how many an epoch has, how large they are, and which images come together."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from bench.core.transfer import to_device


def leaves_one(n: int, size: int) -> bool:
    """Whether batches of `size` leave one of n items over, which then joins the batch before it.

    Batch norm has no statistics of a single image. The rule holds for all networks, so that which images
    come together does not depend on the norm.
    """
    return n > size > 1 and n % size == 1


def batches_per_epoch(n: int, size: int) -> int:
    """How many batches of `size` an epoch over n items takes; see `leaves_one`."""
    return n // size if leaves_one(n, size) else -(-n // size)


def batch_share(n: int, size: int, steps: int) -> float:
    """The mean size of the first batches of epochs over n items, as a part of the size of the first one."""
    batches = batches_per_epoch(n, size)
    return (steps // batches * n + steps % batches * size) / (steps * size) if batches > 1 else 1.0


class BatchOrder(Iterator[Tensor]):
    """Endless batches of indices, int64 [b]: a new permutation each epoch, whose last batch may be smaller.

    It is larger by one where it would leave a single item over, see `leaves_one`.

    Args:
        n: number of items.
        size: items per batch.
        generator: a CPU generator.
        device: where the indices go.
        variants: int64 [n,V]; an item is one of the V of its row, drawn anew in each epoch.
    """

    def __init__(
        self,
        n: int,
        size: int,
        generator: torch.Generator,
        device: torch.device,
        variants: Tensor | None = None,
    ) -> None:
        self._n, self._size, self._generator, self._device = n, size, generator, device
        self._variants = None if variants is None else variants.to(device)
        self._permutation = torch.empty(0, dtype=torch.int64, device=device)
        self._cursor = n  # nothing is left: the first batch shuffles

    def __next__(self) -> Tensor:
        if self._cursor >= self._n:
            shuffled = torch.randperm(self._n, generator=self._generator)
            self._permutation = to_device(shuffled, self._device)
            self._cursor = 0
        end = self._cursor + self._size
        if end == self._n - 1 and leaves_one(self._n, self._size):
            end = self._n
        batch = self._permutation[self._cursor : end]
        self._cursor = end
        if self._variants is None:
            return batch
        drawn = torch.randint(self._variants.shape[1], (len(batch),), generator=self._generator)
        return self._variants[batch, to_device(drawn, self._device)]

    def state_dict(self) -> dict[str, Any]:
        """The permutation, the position in it, and the generator's state."""
        state = {"permutation": self._permutation, "cursor": self._cursor}
        return {**state, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict()` was taken."""
        self._permutation, self._cursor = state["permutation"].to(self._device), state["cursor"]
        self._generator.set_state(state["generator"].cpu())
