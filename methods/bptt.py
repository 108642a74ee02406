"""BPTT: plain images learned by back-propagation through time with momentum.

The baseline of Deng & Russakovsky (NeurIPS 2022): their method without its memory; each image is stored.

Deviations: images start as noise of unit length or as real images (the authors: Xavier); a gradient that is
clipped is divided by norm + 1e-12 (the authors: norm + 1e-6).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Lt

from bench.core.augment import dsa
from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from bench.core.search import Choices, Search
from methods.blocks.hypergradient import SGD, check_differentiable
from methods.blocks.learned_scalars import LearnedScalars
from methods.blocks.parameterise.pixels import Pixels
from methods.blocks.unroll_windows import Unroll
from methods.blocks.unrolled import Clip, Unrolled, fresh_states, learn_unrolled


@dataclass(frozen=True)
class BPTT:
    """Plain images, learned by differentiating a network's real loss through its training on them."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Deng & Russakovsky, Remember the Past, NeurIPS 2022 (its baseline without the memory)"
    )
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})
    exact_gradients: ClassVar[bool] = True

    steps: Annotated[int, Gt(0)] = 50000
    init: Annotated[Literal["unit", "noise", "real"], Choices(("unit", "noise", "real"))] = "unit"
    labels: Literal["hard", "class", "image"] = "hard"
    unroll: Annotated[int, Gt(0)] = 150  # T, steps of a network
    inner_lr: Annotated[float, Gt(0), Search(1e-3, 0.3)] = 0.01  # eta
    inner_momentum: Annotated[float, Ge(0), Lt(1)] = 0.9  # mu
    batch_per_class: Annotated[int, Gt(0)] = 10  # n_c, images per class and inner step
    batch_real: Annotated[int, Gt(0)] = 64  # real images per class and outer step
    augment: str = "flip_rotate"  # one draw for all images of an outer step
    lr: Annotated[float, Gt(0), Search(0.01, 100)] = 0.1
    momentum: Annotated[float, Ge(0), Search(0, 0.95, "linear")] = 0.5
    clip: Annotated[float, Gt(0), Search(0.1, 10)] = 2.0  # of the gradient's norm

    def __post_init__(self) -> None:
        dsa.parse_strategy(self.augment)

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def check(self, problem: Problem) -> None:
        """A network that can be differentiated through, and labels within the budget."""
        Pixels.count(problem, self.labels)
        check_differentiable(problem.make_net(problem.rng("check")))

    def distill(self, problem: Problem) -> DistilledDataset:
        """Back-propagation through time (Deng & Russakovsky, NeurIPS 2022, section 3.2) on plain images."""
        synthetic = Pixels.start(problem, problem.rng("bptt", "init"), init=self.init, labels=self.labels)
        rule = SGD(self.inner_momentum)
        fresh = fresh_states(problem, rule)
        windows = Unroll("full", self.unroll, self.unroll, 1, fresh, problem.rng("bptt", "windows"))
        unrolled = Unrolled(
            problem,
            "bptt",
            rule,
            windows,
            batch_per_class=self.batch_per_class,
            batch_real=self.batch_real,
            strategy=self.augment,
            siamese=True,
        )
        optimiser = torch.optim.SGD(synthetic.parameters(), lr=self.lr, momentum=self.momentum)
        eta = LearnedScalars(synthetic, "inner_lr", self.inner_lr, 0.0, 0.0)
        learn_unrolled(
            problem, synthetic, unrolled, optimiser, eta, outer_steps=self.steps, clip=Clip(self.clip)
        )
        return synthetic


METHOD = BPTT
