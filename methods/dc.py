"""DC: Dataset Condensation with Gradient Matching (Zhao, Mopuri & Bilen, ICLR 2021, algorithm 1).

Deviations: the images start as real ones by default (the paper: noise); a real batch is never larger than
the smallest class; the cosine divides by max(norms, 1e-6) (the authors: norms + 1e-6).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt

from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from bench.core.search import Choices, Search
from methods.blocks.class_gradients import check_matchable
from methods.blocks.gradient_matching_loop import match_gradients
from methods.blocks.matching_batches import MatchingBatches
from methods.blocks.network_pools import TrainedOnSynthetic
from methods.blocks.parameterise.pixels import Pixels


@dataclass(frozen=True)
class DC:
    """Match the gradients of real and synthetic images while networks train on the synthetic set."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Zhao, Mopuri & Bilen, Dataset Condensation with Gradient Matching, ICLR 2021"
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})

    iterations: Annotated[int, Gt(0)] = 1000  # K: networks
    inner_steps: Annotated[int, Gt(0)] = 1  # T: matchings under each network
    net_epochs: Annotated[int, Gt(0)] = 1  # of training a network on the synthetic set, between two matchings
    lr: Annotated[float, Gt(0), Search(1e-3, 10)] = 0.1  # eta_S
    momentum: Annotated[float, Ge(0), Search(0, 0.95, "linear")] = 0.5
    batch_real: Annotated[int, Gt(0)] = 256  # real images per class and matching
    net_lr: Annotated[float, Gt(0), Search(1e-3, 0.1)] = 0.01  # eta_theta
    net_batch: Annotated[int, Gt(0)] = 256
    init: Annotated[Literal["real", "noise"], Choices(("real", "noise"))] = "real"

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def check(self, problem: Problem) -> None:
        """A network whose gradients can be taken class by class."""
        check_matchable(problem.make_net(problem.rng("check")), problem.image_shape, "weights")

    def distill(self, problem: Problem) -> DistilledDataset:
        """Gradient matching: algorithm 1 of Zhao, Mopuri & Bilen (ICLR 2021)."""
        synthetic = Pixels.start(problem, problem.rng("dc", "init"), init=self.init)
        pairs = MatchingBatches(problem, "dc", self.batch_real, "none")
        pool = TrainedOnSynthetic(
            problem, "dc", lr=self.net_lr, batch_size=self.net_batch, epochs=self.net_epochs
        )
        return match_gradients(
            problem,
            synthetic,
            pairs,
            pool,
            iterations=self.iterations,
            inner_steps=self.inner_steps,
            lr=self.lr,
            momentum=self.momentum,
        )


METHOD = DC
