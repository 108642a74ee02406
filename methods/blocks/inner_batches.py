"""The batches of an inner training run, drawn before it begins, so that a reverse sweep can replay them."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.core.augment import dsa
from bench.core.errors import UserError
from bench.core.training import BatchOrder


@dataclass(frozen=True)
class InnerBatch:
    """The images of one inner step, int64 [b] on their device, and how they are augmented."""

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
    """`take` of the `per_class` images of each class (all, if they are fewer) for each step, class by class.

    Without replacement inside a step, anew for each step (Deng & Russakovsky, NeurIPS 2022). Image i of class
    c is item c x per_class + i. `classes` int64 [k] restricts all steps to some classes. The augmentation is
    drawn for each image, or with `siamese` once for the whole run: then every batch carries the same draw.
    Raises UserError where a step would take nothing.
    """
    _positive(take)
    chosen = torch.arange(n_classes) if classes is None else classes.cpu()
    keys = torch.rand(steps, len(chosen), per_class, generator=generator)
    picked = keys.topk(min(take, per_class), dim=2).indices
    items = (chosen[:, None] * per_class + picked).flatten(1).to(device)
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
    """A shuffled list of all items, in chunks; shuffled again when used up (Cazenavette et al., CVPR 2022).

    The last chunk of a list may be smaller. Augmentation and errors as in `balanced_batches`.
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
