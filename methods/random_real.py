"""Random real images: what a distilled set must beat."""

from dataclasses import dataclass, field
from typing import ClassVar

from bench.core.distilled import DistilledDataset
from bench.core.method import IPC, SEED, YOUNG, Prerequisite, Problem
from bench.core.sampling import ClassSampler
from methods.blocks.coresets import check_enough, real_images


@dataclass(frozen=True)
class RandomReal:
    """`ipc` training images of each class, drawn without replacement."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "baseline: random real images"
    depends_on: ClassVar[frozenset[str]] = frozenset({IPC, SEED})

    repeat: bool = field(default=False, metadata=YOUNG)  # images of a class of fewer than ipc

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def check(self, problem: Problem) -> None:
        """Enough images in every class."""
        check_enough(problem, self.repeat)

    def distill(self, problem: Problem) -> DistilledDataset:
        """Draw `ipc` training images of each class without replacement."""
        check_enough(problem, self.repeat)
        drawn = ClassSampler(problem.index, problem.ipc, problem.rng("random_real")).next()
        return real_images(problem, list(drawn))


METHOD = RandomReal
