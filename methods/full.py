"""The whole training set: the accuracy to reach. It is not a distilled set, so no budget applies."""

from dataclasses import dataclass
from typing import ClassVar

from bench.core.distilled import DistilledDataset
from bench.core.method import Prerequisite, Problem
from methods.blocks.coresets import real_images


@dataclass(frozen=True)
class Full:
    """Every training image; one artifact for all budgets, architectures and seeds."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "baseline: the whole training set"
    depends_on: ClassVar[frozenset[str]] = frozenset()

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def distill(self, problem: Problem) -> DistilledDataset:
        """Return the whole training set; the budget does not apply."""
        index = problem.index
        return real_images(problem, [index.members(c) for c in range(problem.n_classes)])


METHOD = Full
