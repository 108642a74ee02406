"""The whitening of the training images, as a prerequisite: fitted once, shared by all that work on it."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bench.core.method import Prerequisite, Problem
from bench.core.preprocess import Zca


@dataclass(frozen=True)
class Whitening:
    """ZCA of one kind (bench.core.preprocess.Zca), fitted to all training images."""

    version: ClassVar[int] = 1
    depends_on: ClassVar[frozenset[str]] = frozenset()

    kind: str = "mtt"
    eps: float = 0.1

    def __str__(self) -> str:
        return f"whitening {self.kind}"

    def requires(self) -> dict[str, Prerequisite]:
        return {}

    def build(self, problem: Problem) -> dict[str, Tensor]:
        """What `Zca.of(kind, tensors)` takes."""
        return Zca.fit(problem.images, self.kind, self.eps).tensors()
