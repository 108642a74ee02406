"""IDM: Improved Distribution Matching for Dataset Condensation (Zhao et al., CVPR 2023).

Distribution matching with three changes: stored images are cut into factor^2 and enlarged (partitioning and
expansion, which is multi-formation); features are those of networks of all ages, which train on real images
while they are matched under; and the synthetic images are to be classified by them, the more the better the
network is.

Deviations: all classes are in one batch, as in `dm`; a real batch is never larger than the smallest class. A
network's accuracy is that on the real batch of the step. The networks' own training has no augmentation, and
its rate, momentum and batch are ours.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt

from bench.core import timing
from bench.core.augment import dsa
from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from bench.core.training import Recipe
from methods.blocks.matching_batches import MatchingBatches
from methods.blocks.network_queue import NetworkQueue
from methods.blocks.objectives import distribution_matching
from methods.blocks.parameterise.multi_formation import MultiFormation


@dataclass(frozen=True)
class IDM:
    """Multi-formation, learned by distribution matching under a queue of networks that train on real "
    "images."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Zhao et al., Improved Distribution Matching for Dataset Condensation, CVPR 2023"
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})

    steps: Annotated[int, Gt(0)] = 20000
    factor: Annotated[int, Gt(0)] = 2
    lr: Annotated[float, Gt(0)] = 0.2
    momentum: Annotated[float, Ge(0)] = 0.5
    batch_real: Annotated[int, Gt(0)] = 256  # real images per class and step
    weight: Annotated[float, Ge(0)] = 0.5  # of the cross-entropy, times the network's accuracy
    queue: Annotated[int, Gt(0)] = 100  # networks in it, at most
    every: Annotated[int, Gt(0)] = 30  # steps between two new networks
    trained: Annotated[int, Ge(0)] = 2  # networks that train after each step
    net_steps: Annotated[int, Gt(0)] = 10  # that each of them takes
    net_lr: Annotated[float, Gt(0)] = 0.01
    net_momentum: Annotated[float, Ge(0)] = 0.9
    net_batch: Annotated[int, Gt(0)] = 256
    augment: str = "color_crop_cutout_flip_scale_rotate"  # siamese: one draw per class and step

    def __post_init__(self) -> None:
        dsa.parse_strategy(self.augment)

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def check(self, problem: Problem) -> None:
        """Images within the budget."""
        MultiFormation.count(problem, factor=self.factor)

    def distill(self, problem: Problem) -> DistilledDataset:
        """Improved distribution matching: section 3 of Zhao et al. (CVPR 2023)."""
        start = problem.rng("idm", "init")
        synthetic = MultiFormation.start(problem, start, factor=self.factor, init="mix")
        pairs = MatchingBatches(problem, "idm", self.batch_real, self.augment)
        optimiser = torch.optim.SGD(synthetic.parameters(), lr=self.lr, momentum=self.momentum)
        recipe = Recipe(
            batch_size=self.net_batch, lr=self.net_lr, momentum=self.net_momentum, weight_decay=5e-4, steps=1
        )
        pool = NetworkQueue(
            problem,
            "idm",
            recipe=recipe,
            most=self.queue,
            every=self.every,
            trained=self.trained,
            steps=self.net_steps,
        )
        steps = problem.loop.steps(self.steps, synthetic, "lr", optimiser=optimiser, pairs=pairs, pool=pool)
        for step in steps:
            pool.restart()
            net, pair = pool.net, pairs.next(synthetic)
            with torch.no_grad(), timing.part("real gradient"):
                real = net.embed(pair.real)
                accuracy = (net.classifier(real).argmax(1) == pair.real_targets).float().mean()
            with timing.part("synthetic gradient"):
                features = net.embed(pair.synthetic)
                matching = distribution_matching(real, features, problem.n_classes)
                known = F.cross_entropy(net.classifier(features), pair.targets)
                loss = matching + self.weight * accuracy * known
                optimiser.zero_grad()
                loss.backward(inputs=list(synthetic.parameters()))
            optimiser.step()
            pool.advance(synthetic, followed=step + 1 < self.steps)
            steps.loss(loss.detach())
        synthetic.clamp()
        return synthetic


METHOD = IDM
