"""Random real images: what a distilled set must beat."""

from dataclasses import dataclass
from typing import ClassVar

from bench.artifact import DistilledDataset
from bench.data import ClassIndex, ClassSampler
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
        index = ClassIndex.of(problem.labels, problem.n_classes)
        drawn = ClassSampler(index, problem.ipc, problem.rng("random_real")).next()
        return real_images(problem, list(drawn))


METHOD = RandomReal
