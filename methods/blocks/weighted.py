"""Coresets with weights: images of each class that stand for its gradients, as those papers choose them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor

from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from bench.core.transfer import to_device, to_host
from methods.blocks.coresets import check_enough, real_images
from methods.blocks.dynamics import Dynamics
from methods.blocks.parameterise.weighted_pixels import WeightedPixels

LEAST_WEIGHT = 1e-6  # of a mean of 1: the class can be read from the target of an image that has none


@dataclass(frozen=True)
class LastGradients:
    """The gradients of the cross-entropy in the last layer's weight and bias, of some images, as factors.

    That of image i is error_i x (features_i, 1), an outer product, which is never formed.
    """

    error: Tensor  # probabilities - onehot, [n,K]
    inputs: Tensor  # features, and 1 for the bias, [n,D+1]

    @classmethod
    def of(cls, probabilities: Tensor, features: Tensor, label: int) -> "LastGradients":
        """Those of images of one class, in float64: probabilities [n,K], features [n,D]."""
        error = probabilities.double().clone()
        error[:, label] -= 1
        return cls(error, torch.cat([features.double(), features.new_ones(len(features), 1).double()], 1))

    def on_host(self) -> "LastGradients":
        """The same on the host."""
        return LastGradients(to_host(self.error), to_host(self.inputs))

    def products(self, some: Tensor) -> Tensor:
        """Inner products of all gradients with those of some, int64 [s]: [n,s]."""
        return (self.error @ self.error[some].T) * (self.inputs @ self.inputs[some].T)

    def products_with_mean(self) -> Tensor:
        """Inner products of each gradient with their mean, [n]."""
        mean = self.error.T @ self.inputs / len(self.error)
        return ((self.error @ mean) * self.inputs).sum(1)


def relative(weights: Tensor) -> Tensor:
    """Weights of a class [k], at least 0, with the mean 1; all 1 where they are all 0."""
    mean = weights.mean()
    scaled = weights / mean if float(mean) > 0 else torch.ones_like(weights)
    return scaled.clamp(min=LEAST_WEIGHT)


@dataclass(frozen=True)
class WeightedCoreset:
    """What coresets with weights share. A subclass says how images of a class are chosen and weighted.

    Deviations of all: the weights of each class have the mean 1, so that each class counts as much as its
    images. Weights are stored, and go over the budget by a float an image, as published; with
    `weighted: false` the same images count alike, and fit.
    """

    version: ClassVar[int] = 1
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})

    network_epochs: Annotated[int, Gt(0)] = 40  # of the training whose last gradients are matched
    weighted: bool = True  # store the weights; false: all images count alike
    repeat: bool = False  # images of a class of fewer than ipc

    @property
    def fit_budget(self) -> bool:
        """Whether the set fits its budget."""
        return not self.weighted

    def requires(self) -> dict[str, Prerequisite]:
        """A training on the real set, and what its network answered."""
        return {"dynamics": Dynamics(self.network_epochs)}

    def check(self, problem: Problem) -> None:
        """Enough images in every class."""
        check_enough(problem, self.repeat)

    def choose(self, gradients: LastGradients, k: int) -> tuple[Tensor, Tensor]:
        """Positions of k images of a class, all different, int64 [k], and their weights [k], on the host."""
        raise NotImplementedError

    def distill(self, problem: Problem) -> DistilledDataset:
        """Choose and weigh `ipc` real images of each class by the gradients of the trained network."""
        check_enough(problem, self.repeat)
        chosen, weights = select_weighted(problem, self.choose)
        plain = real_images(problem, chosen)
        if not self.weighted:
            return plain
        stored = torch.cat(weights).float()
        return WeightedPixels(plain.images, stored, plain.counts, problem.preprocess).to(problem.device)


def select_weighted(
    problem: Problem, choose: Callable[[LastGradients, int], tuple[Tensor, Tensor]]
) -> tuple[list[Tensor], list[Tensor]]:
    """Choose `ipc` real images of each class; a class of fewer gives all, again and again.

    Args:
        problem: with the prerequisite `Dynamics` under the role "dynamics".
        choose: (gradients of one class, k) -> positions int64 [k] and weights [k], on the host.

    Returns:
        For each class, indices int64 [ipc] and weights [ipc] of mean 1, on the host.
    """
    dynamics = {
        name: to_device(problem.prepared["dynamics"][name], problem.device)
        for name in ("probabilities", "features")
    }
    index = problem.index
    place, chosen, weights = torch.arange(problem.ipc), [], []
    for c in range(problem.n_classes):
        members = index.members(c)
        there = to_device(members, problem.device)
        gradients = LastGradients.of(**{name: t[there] for name, t in dynamics.items()}, label=c)
        picked, weight = choose(gradients, min(problem.ipc, len(members)))
        again = place % len(picked)
        chosen.append(members[picked[again]])
        weights.append(relative(weight[again]))
    return chosen, weights
