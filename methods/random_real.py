"""Random real images: what a distilled set must beat."""

from dataclasses import dataclass
from typing import ClassVar

from bench.core.distilled import DistilledDataset
from bench.core.method import IPC, SEED, Prerequisite, Problem
from bench.core.sampling import ClassIndex, ClassSampler
from methods.blocks.coresets import real_images


@dataclass(frozen=True)
class RandomReal:
    """`ipc` training images of each class, drawn without replacement."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "baseline: random real images"
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, SEED})

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def distill(self, problem: Problem) -> DistilledDataset:
        """Draw `ipc` training images of each class without replacement."""
        index = ClassIndex.of(problem.labels, problem.n_classes)
        drawn = ClassSampler(index, problem.ipc, problem.rng("random_real")).next()
        return real_images(problem, list(drawn))


METHOD = RandomReal
