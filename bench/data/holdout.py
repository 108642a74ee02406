"""A hold-out of the training set, so that choices need not look at the test split."""

import torch
from torch import Tensor

from bench.core import random
from bench.core.errors import UserError
from bench.core.sampling import ClassIndex
from bench.data.dataset import DecodedSplits, Split


def held_out(
    labels: Tensor, n_classes: int, fraction: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A stratified part of the images, at random: the indices of the rest and of the part, int64, ascending.

    `labels` int64 [N] on the CPU. The part has the fraction of each class, rounded, and both sides have at
    least one image of it. The part of a larger fraction holds that of a smaller. Raises UserError for a
    class with fewer than two images, and for a label outside 0..n_classes-1.
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
    """The data set whose test split is a fixed hold-out of its training split; its own test split is gone."""
    train = raw.train
    parts = held_out(train.labels, len(raw.classes), fraction, random.generator(0, "holdout"))
    rest, held = (Split(train.images[rows], train.labels[rows]) for rows in parts)
    return DecodedSplits(rest, held, raw.classes)
