"""Trajectory matching: synthetic images on which a network moves as experts moved on the real ones."""

from typing import Any

import torch
from torch import Tensor

from bench.core.method import Problem
from methods.blocks.experts import Experts
from methods.blocks.hypergradient import SGD, FlatNetwork, Gradient, Hypergradient, State, hypergradient
from methods.blocks.inner_batches import InnerBatch, shuffled_batches
from methods.blocks.learned_scalars import LearnedScalars
from methods.blocks.objectives import trajectory_distance
from methods.blocks.parameterise.base import Balanced


class TrajectoryMatching:
    """Training on synthetic images should lead where experts went (Cazenavette et al., CVPR 2022, eq. 2).

    A segment of `span` (M) epochs of a random expert, from one of its first `start_epochs` (T+), should be
    covered by one step of gradient descent, at rate alpha, for each batch of synthetic images.
    """

    def __init__(
        self, problem: Problem, purpose: str, start_epochs: int, span: int, gradient: Gradient = "exact"
    ) -> None:
        self._net = FlatNetwork(problem.make_net(problem.rng(purpose, "network")))
        self._experts, self._range, self._gradient = Experts(problem), (start_epochs, span), gradient
        self._segments, self._order = problem.rng(purpose, "segments"), problem.rng(purpose, "batches")

    def shuffled(self, images: Tensor, size: int, steps: int, strategy: str) -> list[InnerBatch]:
        """A batch for each inner step: chunks of a shuffled list of all images (`size` 0: all at once)."""
        n = len(images)
        return shuffled_batches(n, size or n, steps, self._order, strategy, device=images.device)

    def __call__(
        self, images: Tensor, targets: Tensor, alpha: Tensor, batches: list[InnerBatch]
    ) -> Hypergradient:
        """The loss, and its gradient to the decoded images [n,C,H,W], soft targets [n,K] and alpha."""
        theta, target = self._experts.segment(self._segments, *self._range)
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
        )

    def state_dict(self) -> dict[str, Any]:
        return {"segments": self._segments.get_state(), "order": self._order.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._segments.set_state(state["segments"])
        self._order.set_state(state["order"])


def match_trajectories(
    problem: Problem,
    synthetic: Balanced,
    matching: TrajectoryMatching,
    alpha: LearnedScalars,
    *,
    steps: int,
    inner_steps: int,
    batch_synthetic: int,
    augment: str,
    lr: float,
    momentum: float,
) -> None:
    """Algorithm 1 of MTT: learns `synthetic`, and the step size alpha, in place."""
    optimiser = torch.optim.SGD(synthetic.parameters(), lr=lr, momentum=momentum)
    run = problem.loop.steps(
        steps, synthetic, "lr_lr, lr or start_epochs", optimiser=optimiser, alpha=alpha, matching=matching
    )
    for _ in run:
        images, targets = synthetic.decode()
        batches = matching.shuffled(images, batch_synthetic, inner_steps, augment)
        found = matching(images, targets, alpha.value, batches)
        optimiser.zero_grad()
        found.backward(images, targets)
        optimiser.step()
        alpha.step(found.lr)
        run.loss(found.loss)
