"""IDC: Dataset Condensation via Efficient Synthetic-Data Parameterization (Kim et al., ICML 2022).

Multi-formation: a stored image decodes to factor^2 training images of its class. Their gradients are matched
to those of real images, under networks that train on real data between the matchings. `factor: 1` is IDC-I.

Deviations: the classes of a matching step form one batch, each with its own augmentation draw, and the
optimiser takes one step for all of them (the paper: one after each class; either way, a gradient moves the
pixels of its class by 2 lr in total). Initial images are shrunk by an area filter directly into their tiles,
so that they decode correctly even if the factor does not divide the side (the authors: nearest neighbours).
With `distance: cosine` the divisor is max(norms, 1e-6) (the authors: norms + 1e-6). A real batch is
never larger than the smallest class.
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
from methods.blocks.experts import Experts, trajectories
from methods.blocks.hypergradient import check_differentiable
from methods.blocks.matching_batches import MatchingBatches
from methods.blocks.network_pools import Pool, PoolRecipe, TrainedOnReal, TrainedOnSynthetic
from methods.blocks.objectives import gradient_matching
from methods.blocks.parameterise.multi_formation import MultiFormation


@dataclass(frozen=True)
class IDC:
    """Multi-formation, learned by gradient matching under networks trained on real data."""

    version: ClassVar[int] = 2
    paper: ClassVar[str] = (
        "Kim et al., Dataset Condensation via Efficient Synthetic-Data Parameterization, ICML 2022"
    )
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})

    factor: Annotated[int, Gt(0)] = 2  # f
    decoder: Literal["uniform", "multi_scale", "bounded", "learnable"] = "uniform"
    iterations: Annotated[int, Gt(0)] = 2000  # T: networks
    inner_steps: Annotated[int, Gt(0)] = 100  # M: matchings under each network
    # of the stored pixels; the paper scales it by ipc / 10
    lr: Annotated[float, Gt(0), Search(1e-4, 1)] = 0.005
    momentum: Annotated[float, Ge(0), Search(0, 0.95, "linear")] = 0.5
    batch_real: Annotated[int, Gt(0)] = 64  # real images per class and matching
    batch_synthetic: Annotated[int, Gt(0)] = 128  # formed images per class and matching, at most
    distance: Annotated[Literal["squared", "l1", "cosine"], Choices(("squared", "l1", "cosine"))] = "squared"
    augment: str = "color+crop+cutout"  # siamese: one draw per class and matching
    labels: Literal["hard", "class", "image"] = "hard"
    train_on: Literal["real", "synthetic"] = "real"  # what the networks train on; the paper: real
    net_lr: Annotated[float, Gt(0), Search(1e-3, 0.1)] = 0.01
    net_momentum: Annotated[float, Ge(0)] = 0.9
    net_weight_decay: Annotated[float, Ge(0)] = 5e-4
    net_batch: Annotated[int, Gt(0)] = 64
    net_images: Annotated[int, Gt(0)] = 2000  # that a network trains on between two matchings
    net_augment: str = "color+crop"
    cutmix: Annotated[float, Ge(0), Le(1)] = 0.5  # probability per batch of the networks' training
    early: Annotated[int, Ge(0)] = 0  # epochs on real data before the first matching
    pool: Annotated[int, Ge(0)] = 0  # number of pre-trained networks to start from; 0: fresh networks
    pool_from: Annotated[int, Ge(0)] = 5  # first epoch of their training that can be drawn
    pool_epochs: Annotated[int, Gt(0)] = 1  # number of epochs that can be drawn

    def __post_init__(self) -> None:
        dsa.parse_strategy(self.augment)
        dsa.parse_strategy(self.net_augment)

    @property
    def _learning(self) -> PoolRecipe:
        """How networks are trained, both in the pool and between matchings."""
        return {
            "lr": self.net_lr,
            "batch_size": self.net_batch,
            "momentum": self.net_momentum,
            "weight_decay": self.net_weight_decay,
            "augment": self.net_augment,
            "cutmix": self.cutmix,
        }

    def requires(self) -> dict[str, Prerequisite]:
        """With `pool`, networks trained on the real set, from which each network starts."""
        if not self.pool:
            return {}
        return trajectories(self.pool, self.pool_from + self.pool_epochs - 1, **self._learning)

    def check(self, problem: Problem) -> None:
        """A network whose gradients can be taken class by class, and images within the budget."""
        net = problem.make_net(problem.rng("check"))
        MultiFormation.count(problem, factor=self.factor, decoder=self.decoder, labels=self.labels)
        check_matchable(net, problem.image_shape, "kernels")
        if self.pool:  # of experts, which are weights alone
            check_differentiable(net)

    def distill(self, problem: Problem) -> DistilledDataset:
        """Multi-formation (Kim et al., ICML 2022, section 3.2) with gradient matching (section 4)."""
        synthetic = MultiFormation.start(
            problem,
            problem.rng("idc", "init"),
            factor=self.factor,
            decoder=self.decoder,
            init="mix",
            labels=self.labels,
        )
        optimiser = torch.optim.SGD(synthetic.parameters(), lr=self.lr, momentum=self.momentum)
        pairs = MatchingBatches(problem, "idc", self.batch_real, self.augment, self.batch_synthetic)
        pool = self._pool(problem)
        steps = problem.loop.steps(
            self.iterations * self.inner_steps, synthetic, "lr", optimiser=optimiser, pairs=pairs, pool=pool
        )
        for step in steps:
            if step % self.inner_steps == 0:  # the next network
                pool.restart()
                synthetic.clamp()
            pair = pairs.next(synthetic)
            loss = gradient_matching(
                pool.net, *pair, problem.n_classes, distance=self.distance, matched="kernels"
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            pool.advance(synthetic, followed=(step + 1) % self.inner_steps > 0)
            steps.loss(loss.detach())
        return synthetic

    def _pool(self, problem: Problem) -> Pool:
        steps = -(-self.net_images // self.net_batch)  # rounded up
        if self.train_on == "synthetic":
            return TrainedOnSynthetic(problem, "idc", steps=steps, **self._learning)
        start = Experts(problem, first=self.pool_from) if self.pool else None
        return TrainedOnReal(problem, "idc", steps=steps, early=self.early, start=start, **self._learning)


METHOD = IDC
