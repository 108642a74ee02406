"""A network trained on the real training set, whose outputs label what students are trained on."""

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from bench.core import counting
from bench.core.method import ARCHITECTURE, Prerequisite, Problem
from bench.core.training import Recipe, train


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Teacher(Recipe):
    """A teacher with the students' architecture and its own recipe, shared by all methods and seeds."""

    version: ClassVar[int] = 1
    depends_on: ClassVar[frozenset[str]] = frozenset({ARCHITECTURE})

    def __str__(self) -> str:
        length = f"{self.steps} steps" if self.steps is not None else f"{self.epochs} epochs"
        return f"teacher of {length}"

    def requires(self) -> dict[str, Prerequisite]:
        """No prerequisites."""
        return {}

    def build(self, problem: Problem) -> dict[str, Tensor]:
        """Train the teacher; return the tensors of its `state_dict`."""
        net = problem.make_net(problem.rng("teacher", "network"))
        draws = problem.rng("teacher", "training")
        n = len(problem.images)
        counting.announce(self.n_steps(n), self.batch_size, n)
        train(net, problem.images, problem.labels, self, draws, problem.preprocess)
        return dict(net.state_dict())
