"""DM: Dataset Condensation with Distribution Matching (Zhao & Bilen, WACV 2023, algorithm 1).

Deviations: all classes are in one batch (with per-sample norms this gives the same gradients as the paper's
loop over classes); a real batch is never larger than the smallest class.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from bench.core import timing
from bench.core.augment import dsa
from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from bench.core.networks.base import Network
from bench.core.search import Choices, Search
from bench.core.training import has_batch_norm, in_pieces
from methods.blocks.matching_batches import MatchingBatches
from methods.blocks.objectives import distribution_matching
from methods.blocks.parameterise.pixels import Pixels


@dataclass(frozen=True)
class DM:
    """Match mean embeddings of real and synthetic images under freshly drawn networks."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Zhao & Bilen, Dataset Condensation with Distribution Matching, WACV 2023"
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})

    steps: Annotated[int, Gt(0)] = 20000  # K
    lr: Annotated[float, Gt(0), Search(0.01, 100)] = 1.0  # eta
    momentum: Annotated[float, Ge(0), Search(0, 0.95, "linear")] = 0.5
    batch_real: Annotated[int, Gt(0)] = 256  # real images per class and step
    augment: str = "color_crop_cutout_flip_scale_rotate"  # A, siamese: one draw per class and step
    init: Annotated[Literal["real", "noise"], Choices(("real", "noise"))] = "real"

    def __post_init__(self) -> None:
        dsa.parse_strategy(self.augment)

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def distill(self, problem: Problem) -> DistilledDataset:
        """Distribution matching: algorithm 1 of Zhao & Bilen (WACV 2023)."""
        synthetic = Pixels.start(problem, problem.rng("dm", "init"), init=self.init)
        pairs = MatchingBatches(problem, "dm", self.batch_real, self.augment)
        optimiser = torch.optim.SGD(synthetic.parameters(), lr=self.lr, momentum=self.momentum)
        networks = problem.rng("dm", "networks")
        steps = problem.loop.steps(
            self.steps, synthetic, "lr", optimiser=optimiser, pairs=pairs, networks=networks
        )
        for _ in steps:
            net = problem.make_net(networks).requires_grad_(False)
            pair = pairs.next(synthetic)
            target = self._embed(net, pair.real)
            with timing.part("synthetic gradient"):
                loss = distribution_matching(target, net.embed(pair.synthetic), problem.n_classes)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            steps.loss(loss)
        return synthetic

    @staticmethod
    @timing.charged("real gradient")
    def _embed(net: Network, real: Tensor) -> Tensor:
        """Features of the real images [n,D]: in pieces, unless batch norm needs the whole batch."""
        return net.embed(real) if has_batch_norm(net) else in_pieces(net.embed, real)


METHOD = DM
