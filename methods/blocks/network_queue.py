"""A queue of networks of all ages that train on the real set while they are matched under (IDM)."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch

from bench.core import timing
from bench.core.batches import BatchOrder
from bench.core.distilled import DistilledDataset
from bench.core.method import Problem
from bench.core.networks.base import Network
from bench.core.training import Recipe
from methods.blocks.students import InnerStudent


class NetworkQueue:
    """Networks that join one by one, are drawn for a matching at random, and train on real images between.

    A fresh network joins at the first matching and after every `every` of them; of more than `most` the
    oldest leaves. After each matching some networks, drawn at random, take a few steps on real images.

    Args:
        problem: the training set.
        purpose: the name of the random draws.
        recipe: how they train.
        most: networks in the queue.
        every: matchings between two newcomers.
        trained: networks that train after a matching.
        steps: that each of them takes.

    References:
        Zhao et al., Improved Distribution Matching for Dataset Condensation, CVPR 2023, section 3.2.
    """

    def __init__(
        self,
        problem: Problem,
        *purpose: str | int,
        recipe: Recipe,
        most: int,
        every: int,
        trained: int,
        steps: int,
    ) -> None:
        self._problem, self._recipe = problem, recipe
        self._most, self._every, self._trained, self._steps = most, every, trained, steps
        names = ("networks", "drawn", "draws", "order")
        self._rng = {name: problem.rng(*purpose, name) for name in names}
        n = len(problem.images)
        self._order = BatchOrder(n, recipe.batch_size, self._rng["order"], problem.device)
        self._members: list[InnerStudent] = []
        self._matchings, self._current = 0, 0

    @property
    def net(self) -> Network:
        """The current network."""
        return self._members[self._current].net

    @property
    def size(self) -> int:
        """Networks in the queue."""
        return len(self._members)

    def restart(self) -> None:
        """Let a fresh network join if it is time, and draw one of all."""
        if self._matchings % self._every == 0:
            self._members = [*self._members, self._fresh()][-self._most :]
        self._matchings += 1
        self._current = self._draw()

    def _fresh(self) -> InnerStudent:
        return InnerStudent(self._problem.make_net(self._rng["networks"]), self._recipe, self._rng["draws"])

    def _draw(self) -> int:
        return int(torch.randint(len(self._members), (), generator=self._rng["drawn"]))

    @timing.charged("network update")
    def advance(self, synthetic: DistilledDataset, followed: bool = True) -> None:
        """Train some networks on real images, if another matching follows."""
        problem = self._problem
        for _ in range(self._trained if followed else 0):
            student = self._members[self._draw()]
            for index in islice(self._order, self._steps):
                student.step(problem.preprocess(problem.images[index]), problem.labels[index])

    def state_dict(self) -> dict[str, Any]:
        """The networks, their optimisers, which is current, the order of the images and the generators."""
        return {
            "members": [member.state_dict() for member in self._members],
            "matchings": self._matchings,
            "current": self._current,
            "order": self._order.state_dict(),
            "rng": {name: generator.get_state() for name, generator in self._rng.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict()` was taken."""
        self._members = [self._fresh() for _ in state["members"]]
        for member, kept in zip(self._members, state["members"], strict=True):
            member.load_state_dict(kept)
        self._matchings, self._current = int(state["matchings"]), int(state["current"])
        self._order.load_state_dict(state["order"])
        for name, generator in self._rng.items():
            generator.set_state(state["rng"][name].cpu())
