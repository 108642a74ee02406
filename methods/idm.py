"""IDM: Improved Distribution Matching for Dataset Condensation (Zhao et al., CVPR 2023).

Multi-formation (the paper: partitioning and expansion). The mean features of each class are matched under
networks of different ages from a queue, which train on real images; and the network shall classify the
images, the more so the better it does the real ones.

Deviations: one step of the optimiser is for all classes (the authors: one after each class; either way, a
gradient moves the pixels of its class by 2 lr in total). Pixels are learned in [0, 1] (the authors:
normalised ones, so that presets multiply their rate by the square of their standard deviation). A network's
accuracy is that of its last training (the authors: of all its trainings since the set was evaluated, every
100 to 1000 iterations, and 0 after that until it trains again), and a fraction (theirs: percent). Initial
tiles are shrunk by an area filter (theirs: bilinear). The networks' real images are shuffled and used without
replacement (theirs: drawn anew for each batch). A real batch is never larger than the smallest class.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor

from bench.core import timing
from bench.core.augment import dsa
from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from bench.core.networks.base import Network
from bench.core.search import Search
from bench.core.training import in_pieces
from methods.blocks.matching_batches import MatchingBatches, MatchingPair
from methods.blocks.network_queue import Queue
from methods.blocks.objectives import distribution_matching
from methods.blocks.parameterise.multi_formation import MultiFormation


@dataclass(frozen=True)
class IDM:
    """Multi-formation, learned by matching mean features under a queue of networks trained on real data."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Zhao et al., Improved Distribution Matching for Dataset Condensation, CVPR 2023"
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})

    factor: Annotated[int, Gt(0)] = 2
    steps: Annotated[int, Gt(0)] = 20000
    lr: Annotated[float, Gt(0), Search(1e-3, 10)] = 0.008  # of the stored pixels
    momentum: Annotated[float, Ge(0), Search(0, 0.95, "linear")] = 0.5
    # weight of the cross-entropy at an accuracy of 1
    classification: Annotated[float, Ge(0), Search(0.01, 100)] = 50.0
    batch_real: Annotated[int, Gt(0)] = 256  # real images per class and step
    augment: str = "color_crop_cutout_flip_scale_rotate"  # siamese: one draw per class and step
    networks: Annotated[int, Gt(0)] = 100  # in the queue, at most
    every: Annotated[int, Gt(0)] = 30  # steps from one network that joins to the next
    trained: Annotated[int, Gt(0)] = 2  # networks that train after a step
    net_steps: Annotated[int, Gt(0)] = 10  # of each of them
    net_lr: Annotated[float, Gt(0), Search(1e-3, 0.1)] = 0.01
    net_momentum: Annotated[float, Ge(0)] = 0.9
    net_weight_decay: Annotated[float, Ge(0)] = 5e-4
    net_batch: Annotated[int, Gt(0)] = 256

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
        optimiser = torch.optim.SGD(synthetic.parameters(), lr=self.lr, momentum=self.momentum)
        pairs = MatchingBatches(problem, "idm", self.batch_real, self.augment)
        queue = self._queue(problem)
        steps = problem.loop.steps(self.steps, synthetic, "lr", optimiser=optimiser, pairs=pairs, pool=queue)
        for _ in steps:
            queue.restart()
            loss = self.loss(queue.net, queue.accuracy, pairs.next(synthetic), problem.n_classes)
            optimiser.zero_grad()
            loss.backward(inputs=list(synthetic.parameters()))
            optimiser.step()
            queue.advance(synthetic)
            steps.loss(loss.detach())
        return synthetic

    def loss(self, net: Network, accuracy: Tensor, pair: MatchingPair, n_classes: int) -> Tensor:
        """Distance of mean features and weighted mean cross-entropy, both summed over classes.

        Args:
            net: the network, in evaluation mode, so that real images can go through it in pieces.
            accuracy: of the network, 0-dim.
            pair: real and synthetic images.
            n_classes: K.

        Returns:
            The loss, 0-dim.
        """
        with torch.no_grad(), timing.part("real gradient"):
            real = in_pieces(net.embed, pair.real)
        with timing.part("synthetic gradient"):
            found = net.embed(pair.synthetic)
            error = F.cross_entropy(net.classifier(found), pair.targets)
            weight = self.classification * accuracy * n_classes  # classes have as many images each
            return distribution_matching(real, found, n_classes) + weight * error

    def _queue(self, problem: Problem) -> Queue:
        return Queue(
            problem,
            "idm",
            lr=self.net_lr,
            batch_size=self.net_batch,
            momentum=self.net_momentum,
            weight_decay=self.net_weight_decay,
            networks=self.networks,
            every=self.every,
            trained=self.trained,
            steps=self.net_steps,
        )


METHOD = IDM
