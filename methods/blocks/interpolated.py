"""Networks between the start and the end of a training on the real set."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from bench.core import counting, random, timing
from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, Prerequisite, Problem
from bench.core.networks.base import Network
from bench.core.training import Recipe, train
from bench.core.transfer import to_device

ROLE, INITIAL, TRAINED = "interpolated/", "initial/", "trained/"


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class InitialAndTrained(Recipe):
    """One network before and after its training on the real set.

    It is drawn from its bank and number alone: all seeds of a sweep share bank 0, unless it asks for one per
    seed, and more networks add to those that exist.

    Args:
        number: of the network.
        bank: number of the bank.
    """

    version: ClassVar[int] = 1
    depends_on: ClassVar[frozenset[str]] = frozenset({ARCHITECTURE})

    number: int = 0
    bank: int = 0

    def __str__(self) -> str:
        bank = f"bank {self.bank} " if self.bank else ""
        return f"{bank}network {self.number}, initial and after {self.epochs} epochs"

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def build(self, problem: Problem) -> dict[str, Tensor]:
        """Train the network; return the tensors of its `state_dict`, as initial/NAME and trained/NAME."""
        init, draws = (random.generator(self.bank, ROLE, self.number, what) for what in ("init", "training"))
        net, n = problem.make_net(init), len(problem.images)
        initial = {INITIAL + name: tensor.clone() for name, tensor in net.state_dict().items()}
        counting.announce(self.n_steps(n), self.batch_size, n)
        with timing.part("network update"):
            train(net, problem.images, problem.labels, self, draws, problem.preprocess)
        return initial | {TRAINED + name: tensor for name, tensor in net.state_dict().items()}


def initial_and_trained(networks: int, **recipe: Any) -> dict[str, Prerequisite]:
    """The prerequisites of a method that interpolates.

    Args:
        networks: how many.
        recipe: how they are trained, see `Recipe`.

    Returns:
        {role: prerequisite}, as `Interpolated` expects them.
    """
    return {f"{ROLE}{number}": InitialAndTrained(number=number, **recipe) for number in range(networks)}


class Interpolated:
    """Networks at a random place on the line from the initial to the trained weights of a random network.

    Args:
        problem: with the prerequisites of `initial_and_trained`.
        generator: a CPU generator for all draws.

    References:
        Wang et al. (NCFM), CVPR 2025.
    """

    def __init__(self, problem: Problem, generator: torch.Generator) -> None:
        networks = sum(role.startswith(ROLE) for role in problem.prepared)
        self._ends = [problem.prepared[f"{ROLE}{number}"] for number in range(networks)]
        self._net, self._trained = (problem.make_net(generator) for _ in range(2))
        self._generator, self._device = generator, problem.device
        self._place: list[float] | None = None

    @property
    def net(self) -> Network:
        """The current network."""
        assert self._place is not None, "restart() gives the first network"
        return self._net

    @property
    def trained(self) -> Network:
        """The network at the trained end of the line."""
        assert self._place is not None, "restart() gives the first network"
        return self._trained

    def restart(self) -> None:
        """Take the next network."""
        number = int(torch.randint(len(self._ends), (), generator=self._generator))
        self._go([number, float(torch.rand((), generator=self._generator))])

    def _go(self, place: list[float]) -> None:
        """Take the network of this number, at this share of its initial weights."""
        self._place, ends, share = place, self._ends[int(place[0])], place[1]
        there = {name: to_device(t, self._device) for name, t in ends.items()}
        trained = {name.removeprefix(TRAINED): t for name, t in there.items() if name.startswith(TRAINED)}
        self._trained.load_state_dict(trained)
        self._net.load_state_dict(
            {
                name: t.lerp(there[INITIAL + name], share) if t.is_floating_point() else t
                for name, t in trained.items()
            }
        )

    def advance(self, synthetic: DistilledDataset, followed: bool = True) -> None:
        """Do nothing: these networks are trained already."""

    def state_dict(self) -> dict[str, Any]:
        """Which network, where on its line, and the generator's state."""
        return {"place": self._place, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict()` was taken."""
        self._place = None
        if state["place"] is not None:
            self._go(state["place"])
        self._generator.set_state(state["generator"].cpu())
