"""CCS: Coverage-centric Coreset Selection for High Pruning Rates (Zheng et al., ICLR 2023, algorithm 1).

Deviations: within each class, as in distillation (the authors: over the whole set); and those of
`methods.blocks.scores`. A class keeps at least `ipc` images, whatever `mis_ratio` says.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from bench.core.distilled import DistilledDataset
from bench.core.method import ARCHITECTURE, IPC, SEED, Prerequisite, Problem
from bench.core.sampling import ClassIndex
from bench.core.search import Search
from bench.core.transfer import to_host
from methods.blocks.coresets import check_enough, take
from methods.blocks.dynamics import Dynamics, area_under_margin


def share(budgets: Tensor, sizes: Tensor) -> Tensor:
    """Share a budget among strata, the smallest first; each gives at most its equal part of what is left.

    Args:
        budgets: images to take of each class, int64 [K], at most what its strata have.
        sizes: images of each stratum, int64 [K,S].

    Returns:
        Images to take of each stratum, int64 [K,S]; those of a class sum to its budget.
    """
    order = sizes.argsort(dim=1, stable=True)
    taken, left = torch.zeros_like(sizes), budgets.clone()
    for i in range(sizes.shape[1]):  # of all classes at once
        place = order[:, i : i + 1]
        part = torch.minimum(sizes.gather(1, place)[:, 0], left // (sizes.shape[1] - i))
        taken.scatter_(1, place, part[:, None])
        left -= part
    return taken


def strata_of(values: Tensor, groups: Tensor, n_groups: int, strata: int) -> Tensor:
    """The stratum of each value: intervals of equal width between the least and the greatest of its group.

    Args:
        values: [n].
        groups: the group of each, int64 [n].
        n_groups: number of groups.
        strata: intervals of a group.

    Returns:
        int64 [n], from 0 to strata - 1.
    """
    ends = values.new_zeros(2, n_groups)
    low = ends[0].scatter_reduce(0, groups, values, "amin", include_self=False)[groups]
    high = ends[1].scatter_reduce(0, groups, values, "amax", include_self=False)[groups]
    width = (high - low) / strata
    return ((values - low) / width.where(width > 0, 1)).long().clamp(max=strata - 1)


def places_in(groups: Tensor, n_groups: int) -> Tensor:
    """The place of each element among those of its group, in the order given: int64 [n], from 0."""
    index = ClassIndex.of(groups, n_groups)
    place = torch.arange(len(groups), device=groups.device) - index.offsets[groups[index.order]]
    return torch.empty_like(place).scatter_(0, index.order, place)


@dataclass(frozen=True)
class CCS:
    """Random real images from every range of difficulty, without those that may be mislabelled."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Zheng et al., Coverage-centric Coreset Selection for High Pruning Rates, ICLR 2023"
    )
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, ARCHITECTURE, SEED})

    network_epochs: Annotated[int, Gt(0)] = 40  # of the training that images are scored by
    # beta: the part of lowest AUM that is dropped
    mis_ratio: Annotated[float, Ge(0), Lt(1), Search(0, 0.9, "linear")] = 0.3
    strata: Annotated[int, Gt(0)] = 50  # of equal width in AUM
    repeat: bool = False  # images of a class of fewer than ipc

    def requires(self) -> dict[str, Prerequisite]:
        """A training on the real set, and what its network answered."""
        return {"dynamics": Dynamics(self.network_epochs)}

    def check(self, problem: Problem) -> None:
        """Enough images in every class."""
        check_enough(problem, self.repeat)

    def distill(self, problem: Problem) -> DistilledDataset:
        """Stratified sampling by AUM: algorithm 1 of Zheng et al. (ICLR 2023)."""
        check_enough(problem, self.repeat)
        k, dynamics = problem.n_classes, problem.prepared["dynamics"]
        aum = to_host(area_under_margin(dynamics["true"], dynamics["other"]))
        all_labels, counts = problem.read_labels(), problem.index.counts
        sizes = counts.clamp(max=problem.ipc)
        dropped = torch.minimum((self.mis_ratio * counts).long(), counts - sizes)

        draws = torch.randperm(len(aum), generator=problem.rng("ccs"))
        ranked = draws[aum[draws].argsort(stable=True)]  # the lowest first, equals at random
        ranked = ranked[places_in(all_labels[ranked], k) >= dropped[all_labels[ranked]]]
        kept = draws[torch.isin(draws, ranked)]  # in random order again
        labels = all_labels[kept]
        cell = labels * self.strata + strata_of(aum[kept], labels, k, self.strata)
        within = share(sizes, cell.bincount(minlength=k * self.strata).view(k, self.strata))
        chosen = kept[places_in(cell, k * self.strata) < within.flatten()[cell]]
        index = ClassIndex.of(all_labels[chosen], k)
        return take(problem, chosen[index.order], index.offsets[:-1], sizes)


METHOD = CCS
