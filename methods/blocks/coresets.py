"""Shared by the coreset baselines: real images, chosen class by class, as a distilled set."""

from collections.abc import Callable

import torch
from torch import Tensor

from bench.core.method import Problem
from bench.core.sampling import ClassIndex
from methods.blocks.parameterise.pixels import Pixels


def real_images(problem: Problem, chosen: list[Tensor]) -> Pixels:
    """The chosen training images as a set; `chosen` has one index tensor int64 [n] for each class."""
    return Pixels(problem.images[torch.cat(chosen)], [len(c) for c in chosen], problem.preprocess)


def select_by_features(problem: Problem, pick: Callable[[Tensor, int], Tensor]) -> Pixels:
    """Choose `ipc` real images of each class by their features.

    Args:
        problem: with the prerequisite `Embedding` under the role "embedding".
        pick: (features of one class [n,D], ipc) -> positions of the chosen images, int64 [ipc].

    Returns:
        The chosen images, uint8.
    """
    features = problem.prepared["embedding"]["features"].to(problem.device)
    index = ClassIndex.of(problem.labels, problem.n_classes)
    members = [index.members(c) for c in range(problem.n_classes)]
    return real_images(problem, [m[pick(features[m], problem.ipc)] for m in members])
