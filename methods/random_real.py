"""Random real images: what a distilled set must beat."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from bench.artifact import DistilledDataset
from bench.data import ClassIndex
from bench.method import IPC, SEED, Prepare, Problem
from methods.blocks.coresets import real_images


@dataclass(frozen=True)
class RandomReal:
    """`ipc` training images of each class, drawn without replacement."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "baseline: random real images"
    uses: ClassVar[frozenset[str]] = frozenset({IPC, SEED})

    def requires(self) -> dict[str, Prepare]:
        return {}

    def distill(self, problem: Problem) -> DistilledDataset:
        index, generator = ClassIndex.of(problem.labels, problem.n_classes), problem.rng("random_real")
        chosen = []
        for c in range(problem.n_classes):
            members = index.members(c)
            order = torch.randperm(len(members), generator=generator)[: problem.ipc]
            chosen.append(members[order.to(members.device)])
        return real_images(problem, chosen)


METHOD = RandomReal
