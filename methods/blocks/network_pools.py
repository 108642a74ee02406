"""The networks that methods match under: which one comes next, and how it is trained between matchings.

A pool provides the network for some matchings, and sees the synthetic set only as an argument. Its networks
can be differentiated and keep no gradients of their own training. A pool's state can be saved and restored
exactly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Protocol, Required, TypedDict, Unpack

import torch
from torch import Tensor

from bench.core import counting, timing
from bench.core.batches import BatchOrder, batches_per_epoch
from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, SEED, Prerequisite, Problem
from bench.core.networks.base import Network
from bench.core.training import Recipe, in_pieces, train
from methods.blocks.experts import Experts
from methods.blocks.students import InnerStudent


class Pool(Protocol):
    """What the pools have in common. There is no network before the first `restart()`."""

    @property
    def net(self) -> Network:
        """The current network."""
        ...

    def restart(self) -> None:
        """Take the next network; also the first one."""
        ...

    def advance(self, synthetic: DistilledDataset, followed: bool = True) -> None:
        """Train the network, if this pool does, after a matching.

        Args:
            synthetic: the set.
            followed: whether another matching under this network follows. If not, nothing would see the
                training: its draws are made, so that the next networks stay the same, and it is left out.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """The network and the states of the generators."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict()` was taken."""
        ...


class PoolRecipe(TypedDict, total=False):
    """How a network is trained, at a constant learning rate."""

    lr: Required[float]
    batch_size: Required[int]
    momentum: float
    weight_decay: float
    augment: str  # drawn for each image
    cutmix: float  # probability for each batch


class PoolTraining(PoolRecipe, total=False):
    """How a network is trained, and for how many `steps` or `epochs` at each call of `advance`."""

    steps: int | None
    epochs: int | None


class Fresh:
    """Networks that are not trained: freshly initialised, or random checkpoints of random experts.

    Args:
        problem: makes the networks.
        generator: a CPU generator for all draws.
        start: the experts to take networks from; by default networks are freshly initialised.
    """

    def __init__(self, problem: Problem, generator: torch.Generator, start: Experts | None = None) -> None:
        self._next = problem.make_net if start is None else start.network
        self._generator = generator
        self._net: Network | None = None

    @property
    def net(self) -> Network:
        """The current network."""
        assert self._net is not None, "restart() gives the first network"
        return self._net

    def restart(self) -> None:
        """Take the next network."""
        self._net = self._next(self._generator)

    def advance(self, synthetic: DistilledDataset, followed: bool = True) -> None:
        """Do nothing: these networks are not trained."""

    def state_dict(self) -> dict[str, Any]:
        """The network and the generator's state."""
        net = None if self._net is None else self._net.state_dict()
        return {"net": net, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict()` was taken."""
        self._net = None
        if state["net"] is not None:
            self.restart()  # any network: its weights are replaced
            self.net.load_state_dict(state["net"])
        self._generator.set_state(state["generator"].cpu())


class Fixed:
    """One network for all matchings, such as a trained teacher; it never changes.

    Args:
        net: the network.
    """

    def __init__(self, net: Network) -> None:
        self._net = net

    @property
    def net(self) -> Network:
        """The network."""
        return self._net

    def restart(self) -> None:
        """Do nothing: there is one network."""

    def advance(self, synthetic: DistilledDataset, followed: bool = True) -> None:
        """Do nothing: it is not trained."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the network is given."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""


class _Trained:
    """What both trained pools share: a student, and the draws of its start, augmentation and order."""

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
        """The current network."""
        return self.student.net

    def restart(self) -> None:
        """Take the next network, with a new optimiser."""
        self._student = InnerStudent(self._next(self._rng["networks"]), self._recipe, self._rng["draws"])

    def state_dict(self) -> dict[str, Any]:
        """The network, its optimiser, and the states of the generators."""
        generators = {name: generator.get_state() for name, generator in self._rng.items()}
        return {"student": self._student and self._student.state_dict(), "rng": generators}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict()` was taken."""
        self._student = None
        if state["student"] is not None:
            _Trained.restart(self)  # any network: its weights are replaced
            self.student.load_state_dict(state["student"])
        for name, generator in self._rng.items():
            generator.set_state(state["rng"][name].cpu())


class TrainedOnReal(_Trained):
    """Networks that train on the real set, which keeps their gradients from vanishing.

    The images are shuffled and used without replacement; this order continues across networks. The synthetic
    set is not used.

    Args:
        problem: the training set.
        purpose: the name of the random draws.
        early: epochs that each network trains for before its first matching.
        start: experts whose random checkpoints the networks start from; by default they start from scratch.
        training: how they are trained, and for how long at each call of `advance`.

    References:
        Kim et al. (IDC), ICML 2022.
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
        self._early = early * batches_per_epoch(n, self._recipe.batch_size)
        self._steps = self._recipe.n_steps(n)

    def restart(self) -> None:
        """Take the next network, and train it for the early epochs."""
        super().restart()
        self._train(self._early)

    def advance(self, synthetic: DistilledDataset, followed: bool = True) -> None:
        """Train the network on real images, if another matching follows."""
        self._train(self._steps, followed)

    @timing.charged("network update")
    def _train(self, steps: int, followed: bool = True) -> None:
        problem = self._problem
        for index in islice(self._order, steps):
            if followed:
                self.student.step(problem.preprocess(problem.images[index]), problem.labels[index])
            else:
                self.student.skip((len(index), *problem.image_shape))

    def state_dict(self) -> dict[str, Any]:
        """The network, its optimiser, the states of the generators, and the order of the images."""
        return {**super().state_dict(), "order": self._order.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict()` was taken."""
        super().load_state_dict(state)
        self._order.load_state_dict(state["order"])


class TrainedOnSynthetic(_Trained):
    """Networks that train on the synthetic set in its current state.

    Each call of `advance` decodes the set once, without a graph, and shuffles it anew.

    References:
        Zhao, Mopuri & Bilen (DC), ICLR 2021, algorithm 1.
    """

    @timing.charged("network update")
    def advance(self, synthetic: DistilledDataset, followed: bool = True) -> None:
        """Train the network on the images that the set decodes to, if another matching follows."""
        with torch.no_grad():  # decoding may return the parameter itself
            images, targets = (tensor.detach() for tensor in synthetic.decode())
        order = BatchOrder(len(images), self._recipe.batch_size, self._rng["order"], images.device)
        for index in islice(order, self._recipe.n_steps(len(images))):
            if followed:
                self.student.step(images[index], targets[index])
            else:
                self.student.skip((len(index), *images.shape[1:]))


@dataclass(frozen=True)
class Embedding:
    """Features of every training image under a network trained on the real training set.

    Methods that select real images with the same network and training share it, and are each charged for it.

    Args:
        steps: of the network's training.
        lr: learning rate; a tenth of it after half of the steps.
        batch_size: images per step.
    """

    version: ClassVar[int] = 1
    depends_on: ClassVar[frozenset[str]] = frozenset({ARCHITECTURE, SEED})

    steps: int
    lr: float = 0.01
    batch_size: int = 256

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def build(self, problem: Problem) -> dict[str, Tensor]:
        """Train the network; return {"features": [N,D]}, in the order of the training set."""
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
