"""RaT-BPTT: Embarrassingly Simple Dataset Distillation (Feng, Vedantam & Kempe, ICLR 2024, algorithm 1).

Back-propagation through time over a window at a random position of the inner run, which uses Adam.

Deviations: the position of the window is drawn at every outer step (the authors: every epoch of the real
data); the inner batches hold equally many images of each class; images are whitened only with
`preprocess: zca`.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Gt

from bench.core.augment import dsa
from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from bench.core.search import Choices, Search
from methods.blocks.hypergradient import Adam, check_differentiable
from methods.blocks.learned_scalars import LearnedScalars
from methods.blocks.parameterise.pixels import Pixels
from methods.blocks.unroll_windows import Unroll, check_window
from methods.blocks.unrolled import Clip, Unrolled, fresh_states, learn_unrolled


@dataclass(frozen=True)
class RaTBPTT:
    """Plain images, learned by back-propagation through a random window of training with Adam."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Feng, Vedantam & Kempe, Embarrassingly Simple Dataset Distillation, ICLR 2024"
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})
    exact_gradients: ClassVar[bool] = True

    steps: Annotated[int, Gt(0)] = 50000
    init: Annotated[Literal["unit", "noise", "real"], Choices(("unit", "noise", "real"))] = "unit"
    labels: Literal["hard", "class", "image"] = "hard"
    unroll: Annotated[int, Gt(0)] = 200  # N, the longest inner run
    window: Annotated[int, Gt(0)] = 60  # M, its last steps, which are differentiated
    inner_lr: Annotated[float, Gt(0), Search(1e-4, 0.1)] = 1e-3  # of Adam
    batch_per_class: Annotated[int, Gt(0)] = 50  # images per class and inner step
    batch_real: Annotated[int, Gt(0)] = 500  # real images per class and outer step
    augment: str = "none"
    lr: Annotated[float, Gt(0), Search(1e-4, 0.3)] = 1e-3  # of Adam
    clip: Annotated[float, Gt(0), Search(0.2, 20)] = 2.0  # times the running mean of the gradient's norm
    clip_decay: Annotated[float, Gt(0)] = 0.9

    def __post_init__(self) -> None:
        dsa.parse_strategy(self.augment)

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def check(self, problem: Problem) -> None:
        """A network that can be differentiated through, labels within the budget, a window in the unroll."""
        check_window("random", self.unroll, self.window)
        Pixels.count(problem, self.labels)
        check_differentiable(problem.make_net(problem.rng("check")))

    def distill(self, problem: Problem) -> DistilledDataset:
        """RaT-BPTT: algorithm 1 of Feng, Vedantam & Kempe (ICLR 2024)."""
        synthetic = Pixels.start(problem, problem.rng("rat_bptt", "init"), init=self.init, labels=self.labels)
        rule = Adam()
        fresh = fresh_states(problem, rule)
        windows = Unroll("random", self.unroll, self.window, 1, fresh, problem.rng("rat_bptt", "windows"))
        unrolled = Unrolled(
            problem,
            "rat_bptt",
            rule,
            windows,
            batch_per_class=self.batch_per_class,
            batch_real=self.batch_real,
            strategy=self.augment,
            siamese=False,
        )
        optimiser = torch.optim.Adam(synthetic.parameters(), lr=self.lr)
        eta = LearnedScalars(synthetic, "inner_lr", self.inner_lr, 0.0, 0.0)
        clip = Clip(self.clip, self.clip_decay)
        learn_unrolled(problem, synthetic, unrolled, optimiser, eta, outer_steps=self.steps, clip=clip)
        return synthetic


METHOD = RaTBPTT
