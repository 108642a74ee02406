"""A pool of networks that are trained on the synthetic set in turn, so that their ages differ."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bench.core import timing
from bench.core.distilled import DistilledDataset
from bench.core.losses import label_loss
from bench.core.method import Problem
from bench.core.networks.base import Network
from bench.core.transfer import to_device
from methods.blocks.parameterise.base import Balanced


class Online:
    """Several networks, one of which is drawn for each matching, and takes a step on the set after it.

    A network that has taken `max_age` steps is replaced by a fresh one. The first lives are of different
    lengths, so that from then on the ages are spread evenly.

    Args:
        problem: makes the networks.
        purpose: the name of the random draws.
        lr: of Adam.
        networks: how many.
        max_age: steps of a network's life.
        batch_size: decoded images of a step, at most.
        flip: train on the images and on their mirror images.

    References:
        Zhou, Nezhadarya & Ba, FRePo, NeurIPS 2022, algorithm 1.
    """

    def __init__(
        self,
        problem: Problem,
        *purpose: str | int,
        lr: float,
        networks: int = 10,
        max_age: int = 100,
        batch_size: int = 500,
        flip: bool = False,
    ) -> None:
        self._next, self._lr, self._max_age = problem.make_net, lr, max_age
        self._batch_size, self._flip = batch_size, flip
        self._n_classes, self._device = problem.n_classes, problem.device
        self._rng = {name: problem.rng(*purpose, name) for name in ("networks", "drawn", "chosen")}
        self._members = [self._fresh() for _ in range(networks)]
        self._left = [-(-max_age * (i + 1) // networks) for i in range(networks)]  # steps of each life
        self._current = 0

    def _fresh(self) -> tuple[Network, torch.optim.Adam]:
        net = self._next(self._rng["networks"]).train()
        return net, torch.optim.Adam(net.parameters(), lr=self._lr)

    @property
    def net(self) -> Network:
        """The current network."""
        return self._members[self._current][0]

    @property
    def ages_left(self) -> list[int]:
        """How many steps each network has left before it is replaced."""
        return list(self._left)

    def restart(self) -> None:
        """Draw one of the networks."""
        drawn = torch.randint(len(self._members), (), generator=self._rng["drawn"])
        self._current = int(drawn)

    @timing.charged("network update")
    def advance(self, synthetic: DistilledDataset, followed: bool = True) -> None:
        """Train the current network for one step, or replace it at the end of its life.

        Args:
            synthetic: the set, balanced by class.
            followed: ignored: the network may be drawn again at any time.
        """
        i = self._current
        if self._left[i] == 0:
            self._members[i], self._left[i] = self._fresh(), self._max_age
            return
        with torch.no_grad():
            images, targets = (tensor.detach() for tensor in synthetic.decode(self._items(synthetic)))
        if self._flip:
            images, targets = torch.cat([images, images.flip(-1)]), torch.cat([targets, targets])
        net, optimiser = self._members[i]
        optimiser.zero_grad(set_to_none=True)
        label_loss(net(images), targets, "squared_error").backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        self._left[i] -= 1

    def _items(self, synthetic: DistilledDataset) -> Tensor | None:
        """The positions of the images of a step; None for all."""
        assert isinstance(synthetic, Balanced), "its images are drawn by number"
        n = self._n_classes * synthetic.per_class
        if n <= self._batch_size:
            return None
        chosen = torch.randperm(n, generator=self._rng["chosen"])[: self._batch_size]
        return to_device(chosen, self._device)

    def state_dict(self) -> dict[str, Any]:
        """The networks, their optimisers and ages, which is current, and the states of the generators."""
        return {
            "members": [{"net": net.state_dict(), "optimiser": o.state_dict()} for net, o in self._members],
            "left": self._left,
            "current": self._current,
            "rng": {name: generator.get_state() for name, generator in self._rng.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict()` was taken."""
        for (net, optimiser), kept in zip(self._members, state["members"], strict=True):
            net.load_state_dict(kept["net"])
            optimiser.load_state_dict(kept["optimiser"])
        self._left, self._current = list(state["left"]), state["current"]
        for name, generator in self._rng.items():
            generator.set_state(state["rng"][name].cpu())
