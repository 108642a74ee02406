"""DataDAM: Efficient Dataset Distillation with Attention Matching (Sajedi et al., ICCV 2023).

Under each freshly drawn network, the mean spatial attention of every layer but the last is matched for each
class, and the mean embedding.

Deviations: all classes are in one batch (with per-sample norms this gives the same gradients as a loop over
classes); a real batch is never larger than the smallest class. The power of the attention and the weights are
those of the authors' code.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt

from bench.core import timing
from bench.core.augment import dsa
from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from bench.core.search import Choices, Search
from methods.blocks.attention import attention_matching, check_attention, class_means
from methods.blocks.matching_batches import MatchingBatches
from methods.blocks.parameterise.pixels import Pixels


@dataclass(frozen=True)
class DataDAM:
    """Match mean attention maps and embeddings of real and synthetic images under freshly drawn networks."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Sajedi et al., DataDAM: Efficient Dataset Distillation with Attention Matching, ICCV 2023"
    )
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})

    steps: Annotated[int, Gt(0)] = 20000
    lr: Annotated[float, Gt(0), Search(0.01, 100)] = 1.0
    momentum: Annotated[float, Ge(0), Search(0, 0.95, "linear")] = 0.5
    power: Annotated[float, Gt(0), Search(0.5, 8)] = 1.0  # p, of the values that are summed over the channels
    weight: Annotated[float, Gt(0), Search(0.1, 1e4)] = 100.0  # of the attention, beside the embeddings
    batch_real: Annotated[int, Gt(0)] = 256  # real images per class and step
    augment: str = "color_crop_cutout_flip_scale_rotate"  # siamese: one draw per class and step
    init: Annotated[Literal["real", "noise"], Choices(("real", "noise"))] = "real"

    def __post_init__(self) -> None:
        dsa.parse_strategy(self.augment)

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def check(self, problem: Problem) -> None:
        """A network with maps after its activations, and images within the budget."""
        Pixels.count(problem, "hard")
        check_attention(problem.make_net(problem.rng("check")), problem.image_shape)

    def distill(self, problem: Problem) -> DistilledDataset:
        """Attention matching: section 3 of Sajedi et al. (ICCV 2023)."""
        synthetic = Pixels.start(problem, problem.rng("datadam", "init"), init=self.init)
        pairs = MatchingBatches(problem, "datadam", self.batch_real, self.augment)
        optimiser = torch.optim.SGD(synthetic.parameters(), lr=self.lr, momentum=self.momentum)
        networks = problem.rng("datadam", "networks")
        steps = problem.loop.steps(
            self.steps, synthetic, "lr", optimiser=optimiser, pairs=pairs, networks=networks
        )
        for _ in steps:
            net, pair = problem.make_net(networks).requires_grad_(False), pairs.next(synthetic)
            with torch.no_grad(), timing.part("real gradient"):
                real = class_means(net, pair.real, problem.n_classes, self.power)
            with timing.part("synthetic gradient"):
                found = class_means(net, pair.synthetic, problem.n_classes, self.power)
                loss = attention_matching(real, found, self.weight)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            steps.loss(loss)
        return synthetic


METHOD = DataDAM
