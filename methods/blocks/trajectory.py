"""Trajectory matching: training on synthetic images should lead to the weights that experts reached."""

from typing import Any

import torch
from torch import Tensor

from bench.core.method import Problem
from methods.blocks.experts import Experts
from methods.blocks.hypergradient import (
    ROOM,
    SGD,
    FlatNetwork,
    Gradient,
    Hypergradient,
    State,
    hypergradient,
)
from methods.blocks.inner_batches import InnerBatch, shuffled_batches
from methods.blocks.learned_scalars import LearnedScalars
from methods.blocks.objectives import trajectory_distance
from methods.blocks.parameterise.base import Balanced


class TrajectoryMatching:
    """Distance of a student to an expert, after the student has trained on synthetic images.

    Both start from the weights of a random expert at a random epoch. The student takes one step of gradient
    descent, with learning rate alpha, for each batch of synthetic images; the target is the expert `span`
    epochs later.

    Args:
        problem: with expert trajectories, see `experts.trajectories`.
        purpose: the name of the random draws.
        start_epochs: T+, segments start at an epoch 0 .. T+ - 1.
        span: M, epochs of the expert that the student should cover.
        gradient: "exact" or "tesla", see `hypergradient`.

    Raises:
        UserError: the problem has no expert trajectories, or the network has running statistics.

    References:
        Cazenavette et al., CVPR 2022, eq. 2.
    """

    def __init__(
        self, problem: Problem, purpose: str, start_epochs: int, span: int, gradient: Gradient = "exact"
    ) -> None:
        self._net = FlatNetwork(problem.make_net(problem.rng(purpose, "network")))
        self._experts, self._span, self._gradient = Experts(problem), span, gradient
        self._starts = (0, start_epochs)
        self._segments, self._order = problem.rng(purpose, "segments"), problem.rng(purpose, "batches")

    def start_between(self, first: int, end: int) -> None:
        """From now on segments start at an epoch first .. end - 1."""
        self._starts = (first, end)

    def shuffled(self, images: Tensor, size: int, steps: int, strategy: str) -> list[InnerBatch]:
        """Draw the batches of an inner run: chunks of a shuffled list of all images.

        Args:
            images: the decoded images [n,C,H,W].
            size: images per batch; 0 for all.
            steps: number of batches.
            strategy: augmentation, drawn for each image.

        Returns:
            A batch for each step.
        """
        n = len(images)
        return shuffled_batches(n, size or n, steps, self._order, strategy, device=images.device)

    def __call__(
        self, images: Tensor, targets: Tensor, alpha: Tensor, batches: list[InnerBatch]
    ) -> Hypergradient:
        """Draw a segment and compute the loss.

        Args:
            images: the decoded images [n,C,H,W].
            targets: their classes int64 [n], or probabilities [n,K].
            alpha: learning rate of the student, 0-dim.
            batches: of the student's steps.

        Returns:
            The loss and its derivatives in images, soft targets and alpha.
        """
        first, end = self._starts
        theta, target = self._experts.segment(self._segments, end, self._span, first)
        return hypergradient(
            self._net,
            SGD(),
            images.detach(),
            targets.detach(),
            alpha,
            batches,
            State(theta, (), 0),
            lambda weights: trajectory_distance(weights, theta, target),
            gradient=self._gradient,
            room=ROOM,
        )

    def state_dict(self) -> dict[str, Any]:
        """The states of the generators."""
        return {"segments": self._segments.get_state(), "order": self._order.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict()` was taken."""
        self._segments.set_state(state["segments"])
        self._order.set_state(state["order"])


def match_trajectories(
    problem: Problem,
    synthetic: Balanced,
    matching: TrajectoryMatching,
    alpha: LearnedScalars,
    *,
    outer_steps: int,
    inner_steps: int,
    batch_synthetic: int,
    augment: str,
    lr: float,
    momentum: float,
) -> None:
    """Learn a set by trajectory matching: algorithm 1 of MTT.

    Args:
        problem: the training set and its loop of steps.
        synthetic: the set; learned in place.
        matching: the loss.
        alpha: the student's learning rate; learned in place.
        outer_steps: steps of the set's optimiser.
        inner_steps: N, steps of the student in each of them.
        batch_synthetic: images per inner step; 0 for all.
        augment: augmentation of the student's training, drawn for each image.
        lr: learning rate of the set.
        momentum: of the set's SGD.

    References:
        Cazenavette et al., CVPR 2022, algorithm 1.
    """
    optimiser = torch.optim.SGD(synthetic.parameters(), lr=lr, momentum=momentum)
    steps = problem.loop.steps(
        outer_steps,
        synthetic,
        "lr_lr, lr or start_epochs",
        optimiser=optimiser,
        alpha=alpha,
        matching=matching,
    )
    for _ in steps:
        images, targets = synthetic.decode()
        batches = matching.shuffled(images, batch_synthetic, inner_steps, augment)
        found = matching(images, targets, alpha.value, batches)
        optimiser.zero_grad()
        found.backward(images, targets)
        optimiser.step()
        alpha.step(found.lr)
        steps.loss(found.loss)
