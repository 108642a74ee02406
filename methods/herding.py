"""Herding (Welling, ICML 2009; as a coreset: Rebuffi et al., iCaRL, CVPR 2017, algorithm 4).

Deviations: none. Features are those of a network trained on the real training set.
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor

from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, IPC, SEED, YOUNG, Prerequisite, Problem
from methods.blocks.coresets import check_enough, select_by_features
from methods.blocks.network_pools import Embedding


def herd(features: Tensor, k: int) -> Tensor:
    """Choose k images whose mean feature stays as close as possible to the mean of the class.

    Args:
        features: of one class, [n,D].
        k: how many to choose, at most n.

    Returns:
        Their positions, int64 [k], in the order in which they were chosen.

    References:
        Welling, Herding, ICML 2009; Rebuffi et al., iCaRL, CVPR 2017, algorithm 4.
    """
    mean = features.mean(0)
    total, chosen = torch.zeros_like(mean), []
    free = torch.ones(len(features), dtype=torch.bool, device=features.device)
    for n in range(1, k + 1):
        distance = ((total + features) / n - mean).square().sum(1)
        best = distance.masked_fill(~free, torch.inf).argmin()[None]  # an index of no axis would be read
        total, free[best] = total + features[best][0], False
        chosen.append(best)
    return torch.cat(chosen)


@dataclass(frozen=True)
class Herding:
    """Real images, chosen greedily to match the mean feature of each class."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Rebuffi et al., iCaRL, CVPR 2017 (herding: Welling, ICML 2009)"
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})

    network_steps: Annotated[int, Gt(0)] = 3000
    repeat: bool = field(default=False, metadata=YOUNG)  # images of a class of fewer than ipc

    def requires(self) -> dict[str, Prerequisite]:
        """Features of the training images under a network trained on them."""
        return {"embedding": Embedding(self.network_steps)}

    def check(self, problem: Problem) -> None:
        """Enough images in every class."""
        check_enough(problem, self.repeat)

    def distill(self, problem: Problem) -> DistilledDataset:
        """Herding within each class: algorithm 4 of iCaRL (Rebuffi et al., CVPR 2017)."""
        return select_by_features(problem, herd, self.repeat)


METHOD = Herding
