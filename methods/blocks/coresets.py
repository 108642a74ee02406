"""What the coreset baselines share: real images, chosen class by class, as an artifact."""

from collections.abc import Callable

import torch
from torch import Tensor

from bench.core.method import Problem
from bench.core.sampling import ClassIndex
from methods.blocks.parameterise.pixels import Pixels


def real_images(problem: Problem, chosen: list[Tensor]) -> Pixels:
    """The chosen training images, one index tensor a class, as they are."""
    return Pixels(problem.images[torch.cat(chosen)], [len(c) for c in chosen], problem.preprocess)


def select_by_features(problem: Problem, pick: Callable[[Tensor, int], Tensor]) -> Pixels:
    """Apply `pick(features [n,D], ipc) -> positions [ipc]` to each class; needs an `Embedding` prepared."""
    features = problem.prepared["embedding"]["features"].to(problem.device)
    index = ClassIndex.of(problem.labels, problem.n_classes)
    members = [index.members(c) for c in range(problem.n_classes)]
    return real_images(problem, [m[pick(features[m], problem.ipc)] for m in members])
