"""K-center greedy (Sener & Savarese, ICLR 2018, algorithm 1).

Deviations: per class, as the distillation papers use it; the first centre is the image nearest to the class
mean instead of a random one.
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


def farthest_first(features: Tensor, k: int) -> Tensor:
    """Choose k images: first the one nearest to the mean, then always the one farthest from those chosen.

    Args:
        features: of one class, [n,D].
        k: how many to choose, at most n.

    Returns:
        Their positions, int64 [k], in the order in which they were chosen.

    References:
        Sener & Savarese, ICLR 2018, algorithm 1.
    """
    chosen = [(features - features.mean(0)).square().sum(1).argmin()[None]]  # of no axis it would be read
    nearest = torch.full((len(features),), torch.inf, dtype=features.dtype, device=features.device)
    for _ in range(k - 1):
        distance = (features - features[chosen[-1]]).square().sum(1)
        nearest = torch.minimum(nearest, distance)
        nearest[chosen[-1]] = -1  # never chosen again, even if all images are identical
        chosen.append(nearest.argmax()[None])
    return torch.cat(chosen)


@dataclass(frozen=True)
class KCenter:
    """Real images that cover each class: always the image farthest from those chosen so far."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Sener & Savarese, Active Learning for CNNs: A Core-Set Approach, ICLR 2018"
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
        """K-center greedy within each class: algorithm 1 of Sener & Savarese (ICLR 2018)."""
        return select_by_features(problem, farthest_first, self.repeat)


METHOD = KCenter
