"""DREAM: Efficient Dataset Distillation by Representative Matching (Liu et al., ICCV 2023).

IDC whose real images are not drawn at random: those nearest to the centres of their class's clusters, in the
features of the network that they are matched under, for some matchings until the clusters are made anew.

Deviations: those of `idc`; the set starts as IDC's does. Clusters are made by ten rounds of Lloyd's algorithm
from random images. For how many matchings the authors keep the images was not verified.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le

from bench.core.augment import dsa
from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from bench.core.search import Choices, Search
from methods.blocks.class_gradients import check_matchable
from methods.blocks.cluster_centres import NearestToCentres
from methods.blocks.matching_batches import MatchingBatches
from methods.blocks.network_pools import TrainedOnReal
from methods.blocks.objectives import gradient_matching
from methods.blocks.parameterise.multi_formation import MultiFormation


@dataclass(frozen=True)
class Dream:
    """Multi-formation, learned by matching the gradients of representative real images."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Liu et al., DREAM: Efficient Dataset Distillation by Representative Matching, ICCV 2023"
    )
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})

    factor: Annotated[int, Gt(0)] = 2
    iterations: Annotated[int, Gt(0)] = 2000  # networks
    inner_steps: Annotated[int, Gt(0)] = 100  # matchings under each network
    every: Annotated[int, Gt(0)] = 10  # matchings with the same real images
    lr: Annotated[float, Gt(0), Search(1e-4, 1)] = 0.005  # of the stored pixels
    momentum: Annotated[float, Ge(0), Search(0, 0.95, "linear")] = 0.5
    batch_real: Annotated[int, Gt(0)] = 64  # cluster centres, and real images, per class
    batch_synthetic: Annotated[int, Gt(0)] = 128  # formed images per class and matching, at most
    distance: Annotated[Literal["squared", "l1", "cosine"], Choices(("squared", "l1", "cosine"))] = "squared"
    augment: str = "color+crop+cutout"  # siamese: one draw per class and matching
    net_lr: Annotated[float, Gt(0), Search(1e-3, 0.1)] = 0.01
    net_momentum: Annotated[float, Ge(0)] = 0.9
    net_weight_decay: Annotated[float, Ge(0)] = 5e-4
    net_batch: Annotated[int, Gt(0)] = 64
    net_images: Annotated[int, Gt(0)] = 2000  # that a network trains on between two matchings
    net_augment: str = "color+crop"
    cutmix: Annotated[float, Ge(0), Le(1)] = 0.5  # probability per batch of the networks' training

    def __post_init__(self) -> None:
        dsa.parse_strategy(self.augment)
        dsa.parse_strategy(self.net_augment)

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def check(self, problem: Problem) -> None:
        """A network whose gradients can be taken class by class, and images within the budget."""
        MultiFormation.count(problem, factor=self.factor)
        check_matchable(problem.make_net(problem.rng("check")), problem.image_shape, "kernels")

    def distill(self, problem: Problem) -> DistilledDataset:
        """Representative matching: section 3 of Liu et al. (ICCV 2023), in the loop of IDC."""
        start = problem.rng("dream", "init")
        synthetic = MultiFormation.start(problem, start, factor=self.factor, init="mix")
        optimiser = torch.optim.SGD(synthetic.parameters(), lr=self.lr, momentum=self.momentum)
        pool = TrainedOnReal(
            problem,
            "dream",
            steps=-(-self.net_images // self.net_batch),  # rounded up
            lr=self.net_lr,
            batch_size=self.net_batch,
            momentum=self.net_momentum,
            weight_decay=self.net_weight_decay,
            augment=self.net_augment,
            cutmix=self.cutmix,
        )
        clusters = problem.rng("dream", "clusters")
        nearest = NearestToCentres(problem, self.batch_real, self.every, lambda: pool.net, clusters)
        pairs = MatchingBatches(
            problem, "dream", self.batch_real, self.augment, self.batch_synthetic, nearest
        )
        steps = problem.loop.steps(
            self.iterations * self.inner_steps, synthetic, "lr", optimiser=optimiser, pairs=pairs, pool=pool
        )
        for step in steps:
            if step % self.inner_steps == 0:  # the next network
                pool.restart()
                synthetic.clamp()
            pair = pairs.next(synthetic)
            loss = gradient_matching(pool.net, *pair, problem.n_classes, distance=self.distance)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            pool.advance(synthetic, followed=(step + 1) % self.inner_steps > 0)
            steps.loss(loss.detach())
        return synthetic


METHOD = Dream
