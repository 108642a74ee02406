"""K-means coreset: the real image nearest to each of `ipc` centres of a class (as in DC-BENCH, NeurIPS 2022).

Deviations: none. Features are those of a network trained on the real training set.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor

from bench.core import random
from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, IPC, SEED, YOUNG, Prerequisite, Problem
from bench.core.transfer import to_host
from methods.blocks.coresets import check_enough, select_by_features
from methods.blocks.network_pools import Embedding


def nearest_to_centres(features: Tensor, k: int, seed: int) -> Tensor:
    """Choose, for each of k k-means centres, the nearest image that has not been chosen yet.

    Args:
        features: of one class, [n,D].
        k: how many to choose, at most n.
        seed: of k-means.

    Returns:
        Their positions, int64 [k], all different.
    """
    from sklearn.cluster import KMeans  # takes most of a second to import, and planning loads every method

    features = to_host(features)
    fit = KMeans(k, n_init=3, random_state=seed % 2**32).fit(features.numpy())
    distance = torch.cdist(torch.from_numpy(fit.cluster_centers_).to(features), features)
    chosen = []
    for row in distance:
        chosen.append(row.argmin())
        distance[:, chosen[-1]] = torch.inf
    return torch.stack(chosen)


@dataclass(frozen=True)
class KMeansCoreset:
    """The real image nearest to each k-means centre of its class."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Cui et al., DC-BENCH, NeurIPS 2022 (k-means baseline)"
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})
    lazy_imports: ClassVar[tuple[str, ...]] = ("sklearn.cluster",)

    network_steps: Annotated[int, Gt(0)] = 3000
    repeat: bool = field(default=False, metadata=YOUNG)  # images of a class of fewer than ipc

    def requires(self) -> dict[str, Prerequisite]:
        """Features of the training images under a network trained on them."""
        return {"embedding": Embedding(self.network_steps)}

    def check(self, problem: Problem) -> None:
        """Enough images in every class."""
        check_enough(problem, self.repeat)

    def distill(self, problem: Problem) -> DistilledDataset:
        """K-means within each class: keep the real image nearest to each centre (DC-BENCH, NeurIPS 2022)."""
        pick = partial(nearest_to_centres, seed=random.derive(problem.seed, "k_means"))
        return select_by_features(problem, pick, self.repeat)


METHOD = KMeansCoreset
