"""The batches of an inner training run, drawn before it starts, so that a reverse sweep can repeat them."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.core.augment import dsa
from bench.core.batches import BatchOrder
from bench.core.errors import UserError
from bench.core.transfer import to_device


@dataclass(frozen=True)
class InnerBatch:
    """The images of one inner step.

    Args:
        items: their positions in the set, int64 [b], on its device.
        draw: their augmentation.
    """

    items: Tensor
    draw: dsa.Draw


def balanced_batches(
    n_classes: int,
    per_class: int,
    take: int,
    steps: int,
    generator: torch.Generator,
    strategy: str,
    *,
    classes: Tensor | None = None,
    siamese: bool = False,
    device: torch.device | str = "cpu",
) -> list[InnerBatch]:
    """Batches with equally many images of each class, drawn without replacement anew for each step.

    Args:
        n_classes: number of classes in the set.
        per_class: images of each class in the set; image i of class c is item c * per_class + i.
        take: images of each class in a batch; all of them, if there are fewer.
        steps: number of batches.
        generator: a CPU generator.
        strategy: augmentation, see `dsa.parse_strategy`.
        classes: int64 [k] on the host, the classes that all batches are restricted to; by default all.
        siamese: draw one augmentation for all images of the run, instead of one for each image.
        device: where the items go.

    Returns:
        A batch for each step, class after class.

    Raises:
        UserError: `take` is below 1.

    References:
        Deng & Russakovsky, NeurIPS 2022.
    """
    _positive(take)
    chosen = torch.arange(n_classes) if classes is None else classes
    keys = torch.rand(steps, len(chosen), per_class, generator=generator)
    picked = keys.topk(min(take, per_class), dim=2).indices
    items = to_device((chosen[:, None] * per_class + picked).flatten(1), torch.device(device))
    return _augmented(list(items), strategy, generator, siamese)


def shuffled_batches(
    n_items: int,
    size: int,
    steps: int,
    generator: torch.Generator,
    strategy: str,
    *,
    siamese: bool = False,
    device: torch.device | str = "cpu",
) -> list[InnerBatch]:
    """Chunks of a shuffled list of all items, which is shuffled again when it is used up.

    Args:
        n_items: number of items.
        size: items per batch; the last chunk of a list may be smaller.
        steps: number of batches.
        generator: a CPU generator.
        strategy: augmentation, see `dsa.parse_strategy`.
        siamese: draw one augmentation for all images of the run, instead of one for each image.
        device: where the items go.

    Returns:
        A batch for each step.

    Raises:
        UserError: `size` is below 1.

    References:
        Cazenavette et al., CVPR 2022.
    """
    _positive(size)
    order = BatchOrder(n_items, size, generator, torch.device(device))
    return _augmented(list(itertools.islice(order, steps)), strategy, generator, siamese)


def _augmented(
    items: list[Tensor], strategy: str, generator: torch.Generator, siamese: bool
) -> list[InnerBatch]:
    if siamese:
        shared = dsa.draw(strategy, 1, generator)
        return [InnerBatch(i, shared) for i in items]
    return [InnerBatch(i, dsa.draw(strategy, len(i), generator)) for i in items]


def _positive(size: int) -> None:
    if size < 1:
        raise UserError(f"an inner step cannot take {size} images: ask for at least 1")
