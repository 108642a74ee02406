"""RTP: Remember the Past, Distilling Datasets into Addressable Memories (Deng & Russakovsky, NeurIPS 2022).

All classes share a memory of bases. A label addresses it with coefficient matrices, each of which gives one
training image of its class; there are as many as the budget allows. The set is learned by back-propagation
through a network's training by gradient descent with momentum; the reverse recursion is exact and stores only
the weights of each step.

Deviations: the number of matrices follows from the budget for every data set; inner batches hold equally many
images of each class; the authors' regulariser of the coefficients had no effect on the gradient and is left
out; the initial values are the authors' (`xavier`) or come from real images (`pca`); a gradient that is
clipped is divided by norm + 1e-12 (the authors: norm + 1e-6).
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Lt

from bench.core.augment import dsa
from bench.core.distilled import DistilledDataset
from bench.core.errors import UserError
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from bench.core.search import Search
from methods.blocks.hypergradient import SGD, Adam, check_differentiable
from methods.blocks.learned_scalars import LearnedScalars
from methods.blocks.parameterise.base import Balanced
from methods.blocks.parameterise.linear_bases import LinearBases
from methods.blocks.parameterise.pixels import Pixels
from methods.blocks.unroll_windows import Unroll, check_window
from methods.blocks.unrolled import Clip, Unrolled, fresh_states, learn_unrolled


@dataclass(frozen=True)
class RTP:
    """Addressable memory: shared bases and label-to-coefficient matrices, learned by BPTT with momentum."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Deng & Russakovsky, Remember the Past: Distilling Datasets into Addressable Memories, NeurIPS 2022"
    )
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})
    exact_gradients: ClassVar[bool] = True

    steps: Annotated[int, Gt(0)] = 50000  # outer; the authors stop by hand
    memory: bool = True  # false: plain images (`bptt`)
    bases: Annotated[int, Gt(0)] = 16  # K
    downsample: Annotated[int, Gt(0)] = 2  # s
    queries: Literal["onehot", "learned", "centroid"] = "onehot"
    query_dim: Annotated[int, Gt(0)] = 16  # d_y, of queries that are not one-hot
    init: Literal["xavier", "pca"] = "xavier"
    labels: Literal["hard", "class", "image", "joint"] = "hard"
    unroll: Annotated[int, Gt(0)] = 150  # T, steps of a network
    window: Literal["full", "end", "random", "online"] = "full"
    window_length: Annotated[int, Ge(0)] = 0  # S, steps that are differentiated; 0: all T
    networks: Annotated[int, Gt(0)] = 8  # in the pool of the online window
    inner: Literal["sgd", "adam"] = "sgd"
    inner_lr: Annotated[float, Gt(0), Search(1e-3, 0.3)] = 0.01  # eta
    inner_momentum: Annotated[float, Ge(0), Lt(1), Search(0, 0.95, "linear")] = 0.9  # mu
    lr_lr: Annotated[float, Ge(0)] = 0.0  # of eta; 0: fixed
    momentum_lr: Annotated[float, Ge(0)] = 0.0  # of mu; 0: fixed
    batch_per_class: Annotated[int, Gt(0)] = 32  # n_c, generated images per class and inner step
    batch_real: Annotated[int, Gt(0)] = 64  # real images per class and outer step
    segment: Annotated[int, Ge(0)] = 0  # store one inner state in so many, recompute the others; 0: all
    task_classes: Annotated[int, Ge(0)] = 0  # classes drawn for each outer step; 0: all
    augment: str = "flip_rotate"  # one draw for all images of an outer step
    lr: Annotated[float, Gt(0), Search(0.01, 100)] = 0.1
    momentum: Annotated[float, Ge(0), Search(0, 0.95, "linear")] = 0.5
    clip: Annotated[float, Gt(0), Search(0.1, 10)] = 2.0  # of the gradient's norm

    def __post_init__(self) -> None:
        dsa.parse_strategy(self.augment)
        if self.momentum_lr and (self.inner == "adam" or not self.inner_momentum):
            raise UserError("momentum_lr: no momentum to learn: take inner sgd and inner_momentum above 0")

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def check(self, problem: Problem) -> None:
        """A network that can be differentiated through, a memory in the budget, a window in the unroll."""
        check_window(self.window, self.unroll, self.window_length or self.unroll)
        if self.memory:
            LinearBases.count(problem, **self._storage)
        else:
            Pixels.count(problem, self._pixel_labels)
        check_differentiable(problem.make_net(problem.rng("check")))

    def distill(self, problem: Problem) -> DistilledDataset:
        """Addressable memories learned by BPTT (Deng & Russakovsky, NeurIPS 2022, sections 3.1 and 3.2)."""
        synthetic = self._start(problem)
        rule = SGD(self.inner_momentum) if self.inner == "sgd" else Adam()
        windows = Unroll(
            self.window,
            self.unroll,
            self.window_length or self.unroll,
            self.networks,
            fresh_states(problem, rule),
            problem.rng("rtp", "windows"),
        )
        unrolled = Unrolled(
            problem,
            "rtp",
            rule,
            windows,
            batch_per_class=self.batch_per_class,
            batch_real=self.batch_real,
            strategy=self.augment,
            siamese=True,
            task_classes=self.task_classes,
            segment=self.segment,
        )
        optimiser = torch.optim.SGD(synthetic.parameters(), lr=self.lr, momentum=self.momentum)
        eta = LearnedScalars(synthetic, "inner_lr", self.inner_lr, self.lr_lr, self.momentum)
        mu = self._learned_momentum(synthetic)
        clip = Clip(self.clip)
        learn_unrolled(problem, synthetic, unrolled, optimiser, eta, outer_steps=self.steps, clip=clip, mu=mu)
        return synthetic

    def _learned_momentum(self, synthetic: Balanced) -> LearnedScalars | None:
        if not self.momentum_lr:
            return None
        return LearnedScalars(
            synthetic, "inner_momentum", self.inner_momentum, self.momentum_lr, self.momentum
        )

    def _start(self, problem: Problem) -> Balanced:
        generator = problem.rng("rtp", "init")
        if not self.memory:
            return Pixels.start(problem, generator, init="unit", labels=self._pixel_labels)
        return LinearBases.start(problem, generator, **self._storage)

    @property
    def _pixel_labels(self) -> str:
        """Joint labels belong to bases, which plain images lack."""
        return "hard" if self.labels == "joint" else self.labels

    @property
    def _storage(self) -> dict[str, Any]:
        return {
            "bases": self.bases,
            "downsample": self.downsample,
            "queries": self.queries,
            "query_dim": None if self.queries == "onehot" else self.query_dim,
            "init": self.init,
            "labels": self.labels,
        }


METHOD = RTP
