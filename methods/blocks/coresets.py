"""Shared by the coreset baselines: real images, chosen class by class, as a distilled set."""

from collections.abc import Callable

import torch
from torch import Tensor

from bench.core.errors import UserError
from bench.core.method import Problem
from bench.core.transfer import to_device, to_host
from methods.blocks.parameterise.pixels import Pixels


def real_images(problem: Problem, chosen: list[Tensor]) -> Pixels:
    """The chosen training images as a set; `chosen` has one index tensor int64 [n] for each class."""
    there = to_device(torch.cat(chosen), problem.device)
    return Pixels(problem.images[there], [len(c) for c in chosen], problem.preprocess)


def take(problem: Problem, order: Tensor, starts: Tensor, sizes: Tensor) -> Pixels:
    """`ipc` training images of each class from a list of all classes' choices.

    Args:
        problem: the training set.
        order: positions of training images, class after class, int64 [n].
        starts: where the choices of each class start in `order`, int64 [K].
        sizes: how many each class has, at least 1; one of fewer than `ipc` repeats them, int64 [K].
    """
    place = torch.arange(problem.ipc)
    chosen = order[starts[:, None] + place % sizes[:, None]]
    return real_images(problem, list(chosen))


def check_enough(problem: Problem, repeat: bool) -> None:
    """Check that every class has `ipc` different images, unless a smaller one may repeat its own.

    Raises:
        UserError: names the smallest class.
    """
    counts = problem.index.counts
    smallest, most = int(counts.argmin()), int(counts.min())
    if problem.ipc > most and not repeat:
        name = problem.classes[smallest] if problem.classes else smallest
        raise UserError(
            f"ipc: {problem.ipc} is more than class {name!r} has; use 1 to {most}, or `repeat: true`, with "
            "which a smaller class repeats its images"
        )


def select_by_features(
    problem: Problem, pick: Callable[[Tensor, int], Tensor], repeat: bool = False
) -> Pixels:
    """Choose `ipc` real images of each class by their features.

    Args:
        problem: with the prerequisite `Embedding` under the role "embedding".
        pick: (features of one class [n,D], k <= n) -> positions of the chosen images, int64 [k].
        repeat: a class of fewer than `ipc` images gives all of them, again and again in the order chosen.

    Returns:
        The chosen images, uint8.

    Raises:
        UserError: a class has fewer than `ipc` images, without `repeat`.
    """
    check_enough(problem, repeat)
    index, device = problem.index, problem.device
    features = to_device(problem.prepared["embedding"]["features"], device)
    members = [index.members(c) for c in range(problem.n_classes)]
    place = torch.arange(problem.ipc)
    picked = [pick(features[to_device(m, device)], min(problem.ipc, len(m))) for m in members]
    picked = [to_host(p) for p in picked]  # only now: picking waits for nothing
    return real_images(problem, [m[p[place % len(p)]] for m, p in zip(members, picked, strict=True)])
