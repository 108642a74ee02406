"""The values that the data package hands out."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 [N, C, H, W] and their labels int64 [N]."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> "Split":
        """The same split on `device`; no copy where it is there already."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class DecodedSplits:
    """A decoded data set, as a source gives it."""

    train: Split
    test: Split
    classes: tuple[str, ...]


@dataclass(frozen=True)
class DataSource:
    """Where a data set comes from: `key` changes when the source does; `read` decodes it (slow)."""

    key: str
    read: Callable[[], DecodedSplits]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A data set ready for use.

    `fingerprint` depends on the pixels, labels and class names alone. `mean` and `std` are per channel,
    over the training images scaled to [0, 1].
    """

    name: str
    label: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    fingerprint: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image_shape))
        counts = f"{len(self.train.labels):,} training and {self.n_test:,} test images"
        return f"<Dataset {self.label}: {self.n_classes} classes of {shape} pixels, {counts}>"

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @property
    def n_test(self) -> int:
        return len(self.test.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width
