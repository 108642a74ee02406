"""Networks that methods draw on: which comes next, and what it learns between two matchings.

A pool gives the network of a stretch of matchings and sees the synthetic set only through an argument. Its
networks may be differentiated, and carry no gradient of their own training. Its state can be saved, and taken
up again exactly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Protocol, Required, TypedDict, Unpack

import torch
from torch import Tensor

from bench.core import counting, timing
from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, SEED, Prerequisite, Problem
from bench.core.networks.base import Network
from bench.core.training import BatchOrder, Recipe, in_pieces, train
from methods.blocks.experts import Experts
from methods.blocks.students import InnerStudent


class Pool(Protocol):
    """Which network comes next. There is none before the first `restart()`."""

    @property
    def net(self) -> Network: ...

    def restart(self) -> None:
        """The first network, and the next ones."""
        ...

    def advance(self, synthetic: DistilledDataset) -> None:
        """What happens to the network between two matchings."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class PoolRecipe(TypedDict, total=False):
    """How a network learns, at a constant rate."""

    lr: Required[float]
    batch_size: Required[int]
    momentum: float
    weight_decay: float
    augment: str  # drawn per image
    cutmix: float  # probability per batch


class PoolTraining(PoolRecipe, total=False):
    """And for how long at each call of `advance`: `steps`, or `epochs`."""

    steps: int | None
    epochs: int | None


class Fresh:
    """A freshly initialised network each time, or a random checkpoint of a random expert; none is trained."""

    def __init__(self, problem: Problem, generator: torch.Generator, start: Experts | None = None) -> None:
        self._next = problem.make_net if start is None else start.network
        self._generator = generator
        self._net: Network | None = None

    @property
    def net(self) -> Network:
        assert self._net is not None, "restart() gives the first network"
        return self._net

    def restart(self) -> None:
        self._net = self._next(self._generator)

    def advance(self, synthetic: DistilledDataset) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        net = None if self._net is None else self._net.state_dict()
        return {"net": net, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._net = None
        if state["net"] is not None:
            self.restart()  # a body for the weights
            self.net.load_state_dict(state["net"])
        self._generator.set_state(state["generator"].cpu())


class _Trained:
    """What the two trained pools share: a student, and the draws of its start, augmentation and order."""

    def __init__(
        self,
        problem: Problem,
        *purpose: str | int,
        start: Experts | None = None,
        **training: Unpack[PoolTraining],
    ) -> None:
        values: dict[str, Any] = {"momentum": 0.0, "weight_decay": 0.0, **training}
        self._problem, self._recipe = problem, Recipe(**values)
        self._next = problem.make_net if start is None else start.network
        self._rng = {name: problem.rng(*purpose, name) for name in ("networks", "draws", "order")}
        self._student: InnerStudent | None = None

    @property
    def student(self) -> InnerStudent:
        """The network and its optimiser."""
        assert self._student is not None, "restart() gives the first network"
        return self._student

    @property
    def net(self) -> Network:
        return self.student.net

    def restart(self) -> None:
        self._student = InnerStudent(self._next(self._rng["networks"]), self._recipe, self._rng["draws"])

    def state_dict(self) -> dict[str, Any]:
        generators = {name: generator.get_state() for name, generator in self._rng.items()}
        return {"student": self._student and self._student.state_dict(), "rng": generators}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._student = None
        if state["student"] is not None:
            _Trained.restart(self)  # a body for the weights
            self.student.load_state_dict(state["student"])
        for name, generator in self._rng.items():
            generator.set_state(state["rng"][name].cpu())


class TrainedOnReal(_Trained):
    """Networks that train on the real set, which keeps their gradients alive (IDC; Kim et al., ICML 2022).

    A network starts afresh, or from a random checkpoint of a random expert of `start`, with a new optimiser;
    it first trains for `early` epochs. The order of the images is one shuffle after another, without
    replacement, and goes on across networks. The synthetic set is not looked at.
    """

    def __init__(
        self,
        problem: Problem,
        *purpose: str | int,
        early: int = 0,
        start: Experts | None = None,
        **training: Unpack[PoolTraining],
    ) -> None:
        super().__init__(problem, *purpose, start=start, **training)
        n = len(problem.images)
        self._order = BatchOrder(n, self._recipe.batch_size, self._rng["order"], problem.device)
        self._early, self._steps = early * -(-n // self._recipe.batch_size), self._recipe.n_steps(n)

    def restart(self) -> None:
        super().restart()
        self._train(self._early)

    def advance(self, synthetic: DistilledDataset) -> None:
        self._train(self._steps)

    @timing.charged("network update")
    def _train(self, steps: int) -> None:
        problem = self._problem
        for index in islice(self._order, steps):
            self.student.step(problem.preprocess(problem.images[index]), problem.labels[index])

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "order": self._order.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._order.load_state_dict(state["order"])


class TrainedOnSynthetic(_Trained):
    """Networks that train on the synthetic set as it is at the time (Zhao et al., ICLR 2021, algorithm 1).

    Each call of `advance` decodes the set once, without a graph, and shuffles it anew.
    """

    @timing.charged("network update")
    def advance(self, synthetic: DistilledDataset) -> None:
        with torch.no_grad():  # what is decoded may still be the parameter itself
            images, targets = (tensor.detach() for tensor in synthetic.decode())
        order = BatchOrder(len(images), self._recipe.batch_size, self._rng["order"], images.device)
        for index in islice(order, self._recipe.n_steps(len(images))):
            self.student.step(images[index], targets[index])


@dataclass(frozen=True)
class Embedding:
    """Features of every training image under a network trained on the real training set.

    Whoever selects real images with the same network and recipe shares it, and is charged for it.
    """

    version: ClassVar[int] = 1
    depends_on: ClassVar[frozenset[str]] = frozenset({ARCHITECTURE, SEED})

    steps: int
    lr: float = 0.01
    batch_size: int = 256

    def requires(self) -> dict[str, Prerequisite]:
        return {}

    def build(self, problem: Problem) -> dict[str, Tensor]:
        """{"features": [N,D]}, in the order of the training set."""
        net = problem.make_net(problem.rng("embedding", "init"))
        recipe = Recipe(batch_size=self.batch_size, lr=self.lr, steps=self.steps, milestones=(0.5,))
        order = problem.rng("embedding", "order")
        n = len(problem.images)
        counting.announce(self.steps, self.batch_size, n, then=n)
        with timing.part("network update"):
            train(net, problem.images, problem.labels, recipe, order, problem.preprocess)
        net.eval()
        with torch.inference_mode():
            return {"features": in_pieces(lambda x: net.embed(problem.preprocess(x)), problem.images)}
