"""A hold-out of the training set, on which choices are made without the test split."""

import torch
from torch import Tensor

from bench.core import random
from bench.core.errors import UserError
from bench.core.sampling import ClassIndex
from bench.data.dataset import DecodedSplits, Split


def held_out(
    labels: Tensor, n_classes: int, fraction: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw a stratified random hold-out.

    The hold-out of a larger fraction contains that of a smaller one from the same generator state.

    Args:
        labels: int64 [N], on the CPU.
        n_classes: number of classes.
        fraction: of each class to hold out, rounded to images; each side gets at least one.
        generator: on the CPU.

    Returns:
        The indices of the remaining and of the held-out images, each int64 and ascending.

    Raises:
        UserError: for a class with fewer than two images, and a label outside 0..n_classes-1.
    """
    order = torch.randperm(len(labels), generator=generator)
    index = ClassIndex.of(labels[order], n_classes)
    smallest = int(index.counts.argmin())
    if index.counts[smallest] < 2:
        raise UserError(
            f"class {smallest} (from 0) has {int(index.counts[smallest])} training images, and a hold-out "
            "takes one and leaves one: add images to it, or take it out"
        )
    wanted = (index.counts * fraction).round().long().clamp(min=1).minimum(index.counts - 1)
    rank = torch.arange(len(labels)) - index.offsets[:-1].repeat_interleave(index.counts)
    held = torch.zeros(len(labels), dtype=torch.bool)
    held[order[index.order]] = rank < wanted.repeat_interleave(index.counts)
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def hold_out(raw: DecodedSplits, fraction: float) -> DecodedSplits:
    """Replace the test split by a fixed hold-out of the training split.

    Args:
        raw: the data set; its own test split is dropped.
        fraction: of each class to hold out.

    Raises:
        UserError: for a class with fewer than two training images.
    """
    train = raw.train
    parts = held_out(train.labels, len(raw.classes), fraction, random.generator(0, "holdout"))
    rest, held = (Split(train.images[rows], train.labels[rows]) for rows in parts)
    return DecodedSplits(rest, held, raw.classes)
