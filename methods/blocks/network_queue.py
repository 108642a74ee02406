"""A queue of networks that train on the real set in turn, so that their ages differ."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.core import timing
from bench.core.batches import BatchOrder
from bench.core.distilled import DistilledDataset
from bench.core.method import Problem
from bench.core.networks.base import Network

FIRST = 3  # networks before the first one joins


class Queue:
    """Networks of different ages: one is drawn for each matching, and some train on real images after it.

    A fresh network joins at the first of every so many matchings, and takes the place of the oldest one if
    the queue is full. Networks are matched in evaluation mode.

    Args:
        problem: the training set; makes the networks.
        purpose: the name of the random draws.
        lr: of SGD.
        batch_size: real images of a step; they are shuffled, and all networks go on in one order.
        momentum: of SGD.
        weight_decay: of SGD.
        networks: the most in the queue.
        every: matchings between two that join.
        trained: different networks that are drawn for training after a matching.
        steps: that each of those takes.

    References:
        Zhao et al., IDM, CVPR 2023, section 3.3.
    """

    def __init__(
        self,
        problem: Problem,
        *purpose: str | int,
        lr: float,
        batch_size: int,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        networks: int = 100,
        every: int = 30,
        trained: int = 2,
        steps: int = 10,
    ) -> None:
        self._problem, self._most, self._every = problem, networks, every
        self._trained, self._steps = trained, steps
        self._sgd: dict[str, Any] = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        self._rng = {name: problem.rng(*purpose, name) for name in ("networks", "drawn", "order")}
        self._order = BatchOrder(len(problem.images), batch_size, self._rng["order"], problem.device)
        self._members = [self._fresh() for _ in range(min(FIRST, networks))]
        self._accuracies = [torch.zeros((), device=problem.device) for _ in self._members]
        self._current, self._matchings = 0, 0

    def _fresh(self) -> tuple[Network, torch.optim.SGD]:
        net = self._problem.make_net(self._rng["networks"])
        return net, torch.optim.SGD(net.parameters(), **self._sgd)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def net(self) -> Network:
        """The current network."""
        return self._members[self._current][0]

    @property
    def accuracy(self) -> Tensor:
        """The fraction of the real images of its last training that the current network got right, 0-dim.

        It is 0 for a network that has not trained.
        """
        return self._accuracies[self._current]

    def restart(self) -> None:
        """Let a fresh network join, if it is time, and draw the current one."""
        if self._matchings % self._every == 0:
            if len(self) == self._most:
                del self._members[0], self._accuracies[0]
            self._members.append(self._fresh())
            self._accuracies.append(torch.zeros((), device=self._problem.device))
        self._matchings += 1
        self._current = int(torch.randint(len(self), (), generator=self._rng["drawn"]))
        self.net.eval()

    @timing.charged("network update")
    def advance(self, synthetic: DistilledDataset, followed: bool = True) -> None:
        """Draw networks, and train them on real images.

        Args:
            synthetic: ignored.
            followed: ignored: every network may be drawn again at any time.
        """
        for i in torch.randperm(len(self), generator=self._rng["drawn"])[: self._trained].tolist():
            self._accuracies[i] = self._train(*self._members[i])

    def _train(self, net: Network, optimiser: torch.optim.SGD) -> Tensor:
        """Take the steps; return the fraction of their images that were right before each step, 0-dim."""
        problem, hits = self._problem, []
        net.train()
        for index in islice(self._order, self._steps):
            labels = problem.labels[index]
            logits = net(problem.preprocess(problem.images[index]))
            F.cross_entropy(logits, labels).backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            hits.append(logits.detach().argmax(1) == labels)
        return torch.cat(hits).float().mean()

    def state_dict(self) -> dict[str, Any]:
        """The networks, their optimisers and accuracies, which is current, and the states of the draws."""
        return {
            "members": [{"net": net.state_dict(), "optimiser": o.state_dict()} for net, o in self._members],
            "accuracies": self._accuracies,
            "current": self._current,
            "matchings": self._matchings,
            "order": self._order.state_dict(),
            "rng": {name: generator.get_state() for name, generator in self._rng.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict()` was taken."""
        self._members = [self._fresh() for _ in state["members"]]  # their weights are replaced
        for (net, optimiser), kept in zip(self._members, state["members"], strict=True):
            net.load_state_dict(kept["net"])
            optimiser.load_state_dict(kept["optimiser"])
        self._accuracies = [kept.to(self._problem.device) for kept in state["accuracies"]]
        self._current, self._matchings = state["current"], state["matchings"]
        self._order.load_state_dict(state["order"])
        for name, generator in self._rng.items():
            generator.set_state(state["rng"][name].cpu())
