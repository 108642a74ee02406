"""Real images that are nearest to the centres of their class's clusters, found anew now and then (DREAM)."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from bench.core import timing
from bench.core.method import Problem
from bench.core.networks.base import Network
from bench.core.training import in_pieces
from bench.core.transfer import to_device

ROUNDS = 10  # of Lloyd's algorithm


def lloyd(features: Tensor, there: Tensor, centres: Tensor, rounds: int = ROUNDS) -> Tensor:
    """K-means of every class at once: Lloyd's algorithm from given centres.

    Args:
        features: [K,M,D]; classes of fewer than M images are filled up.
        there: which of them are images, bool [K,M].
        centres: to start from, [K,B,D].
        rounds: how often images are assigned and centres moved.

    Returns:
        The centres [K,B,D]; one that no image is nearest to stays.
    """
    for _ in range(rounds):
        nearest = torch.cdist(features, centres).argmin(2)  # [K,M]
        members = torch.nn.functional.one_hot(nearest, centres.shape[1]).to(features) * there[..., None]
        sizes = members.sum(1)[..., None]  # [K,B,1]
        means = members.mT @ features / sizes.clamp(min=1)
        centres = torch.where(sizes > 0, means, centres)
    return centres


class NearestToCentres:
    """The image of each class nearest to each of B cluster centres, under the network of the moment.

    Args:
        problem: the training set.
        size: B, images per class; never more than the smallest class has.
        every: for how many draws the same images are taken.
        net: gives the network whose features are clustered.
        generator: a CPU generator: images of each class that its centres start from.

    References:
        Liu et al., DREAM: Efficient Dataset Distillation by Representative Matching, ICCV 2023.
    """

    def __init__(
        self,
        problem: Problem,
        size: int,
        every: int,
        net: Callable[[], Network],
        generator: torch.Generator,
    ) -> None:
        index = problem.index
        counts = index.counts
        self._size, self._every, self._net, self._generator = (
            min(size, int(counts.min())),
            every,
            net,
            generator,
        )
        self._problem, self._counts = problem, counts
        place = torch.arange(int(counts.max()))
        self._there = to_device(place < counts[:, None], problem.device)  # [K,M]
        members = index.order[index.offsets[:-1, None] + place % counts[:, None]]
        self._members = to_device(members, problem.device)
        self._taken, self._chosen = 0, torch.empty(0, dtype=torch.int64)

    def next(self) -> Tensor:
        """Indices of the images, int64 [K,B]."""
        if self._taken % self._every == 0:
            self._chosen = self._cluster()
        self._taken += 1
        return self._chosen

    @torch.no_grad()
    @timing.charged("real gradient")
    def _cluster(self) -> Tensor:
        problem, net = self._problem, self._net()
        training = net.training
        net.eval()
        features = in_pieces(lambda x: net.embed(problem.preprocess(x)), problem.images)[self._members]
        net.train(training)
        keys = torch.rand(self._members.shape, generator=self._generator)
        absent = torch.arange(keys.shape[1]) >= self._counts[:, None]
        start = to_device(keys.masked_fill(absent, 2.0).argsort(1)[:, : self._size], problem.device)
        first = features.gather(1, start[..., None].expand(-1, -1, features.shape[2]))
        centres = lloyd(features, self._there, first)
        distances = torch.cdist(centres, features).masked_fill(~self._there[:, None], torch.inf)
        return self._members.gather(1, distances.argmin(2))

    def state_dict(self) -> dict[str, Any]:
        """The images of the moment, for how many draws they were taken, and the generator's state."""
        return {"taken": self._taken, "chosen": self._chosen, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict()` was taken."""
        self._taken = int(state["taken"])
        self._chosen = state["chosen"].to(self._problem.device)
        self._generator.set_state(state["generator"].cpu())
