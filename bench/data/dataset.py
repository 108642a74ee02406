"""Data sets in memory."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 [N,C,H,W] and their labels int64 [N]."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> "Split":
        """The same split on `device`, without a copy if it is there already."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class DecodedSplits:
    """A data set as its source decodes it."""

    train: Split
    test: Split
    classes: tuple[str, ...]


@dataclass(frozen=True)
class DataSource:
    """Where a data set comes from."""

    key: str  # changes when the source does
    read: Callable[[], DecodedSplits]  # decodes it, which is slow


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A data set, ready for use."""

    name: str  # as in DATASETS
    label: str  # as in tables
    train: Split
    test: Split
    classes: tuple[str, ...]
    fingerprint: str  # of pixels, labels and class names alone, the same on every machine
    mean: tuple[float, ...]  # per channel, over the training images scaled to [0, 1]
    std: tuple[float, ...]  # likewise

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image_shape))
        counts = f"{len(self.train.labels):,} training and {self.n_test:,} test images"
        return f"<Dataset {self.label}: {self.n_classes} classes of {shape} pixels, {counts}>"

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def n_test(self) -> int:
        """The number of test images."""
        return len(self.test.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width
