"""K-center greedy (Sener & Savarese, ICLR 2018, algorithm 1).

Deviations: per class, as the distillation papers use it; the first centre is the image nearest to the class
mean instead of a random one.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor

from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from methods.blocks.coresets import select_by_features
from methods.blocks.network_pools import Embedding


def farthest_first(features: Tensor, k: int) -> Tensor:
    """Positions [k]: each next image is the one farthest from all chosen ones."""
    chosen = [(features - features.mean(0)).square().sum(1).argmin()]
    nearest = torch.full((len(features),), torch.inf, dtype=features.dtype, device=features.device)
    for _ in range(k - 1):
        distance = (features - features[chosen[-1]]).square().sum(1)
        nearest = torch.minimum(nearest, distance)
        nearest[chosen[-1]] = -1  # never again, also among identical images
        chosen.append(nearest.argmax())
    return torch.stack(chosen)


@dataclass(frozen=True)
class KCenter:
    """Real images that cover each class: the farthest image is next."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Sener & Savarese, Active Learning for CNNs: A Core-Set Approach, ICLR 2018"
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})

    network_steps: Annotated[int, Gt(0)] = 3000

    def requires(self) -> dict[str, Prerequisite]:
        return {"embedding": Embedding(self.network_steps)}

    def distill(self, problem: Problem) -> DistilledDataset:
        return select_by_features(problem, farthest_first)


METHOD = KCenter
