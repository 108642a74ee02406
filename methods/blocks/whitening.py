"""The whitening of the training images, as a prerequisite: fitted once and shared by all jobs that use it."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bench.core.method import Prerequisite, Problem
from bench.core.preprocess import Zca


@dataclass(frozen=True)
class Whitening:
    """ZCA whitening, fitted to all training images.

    Args:
        kind: "mtt", "kip", "frepo" or "rtp", see `bench.core.preprocess.Zca`.
        eps: what is added to the eigenvalues.
    """

    version: ClassVar[int] = 1
    depends_on: ClassVar[frozenset[str]] = frozenset()

    kind: str = "mtt"
    eps: float = 0.1

    def __str__(self) -> str:
        return f"whitening {self.kind}"

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def build(self, problem: Problem) -> dict[str, Tensor]:
        """Fit the whitening; return the tensors that `Zca.of(kind, tensors)` restores it from."""
        return Zca.fit(problem.images, self.kind, self.eps).tensors()
