"""A network trained on the real training set, that labels what students are trained on."""

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from bench.core import counting
from bench.core.method import ARCHITECTURE, Prerequisite, Problem
from bench.core.training import Recipe, train


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Teacher(Recipe):
    """The recipe is the teacher's own, its architecture the students'. One serves all methods and seeds."""

    version: ClassVar[int] = 1
    depends_on: ClassVar[frozenset[str]] = frozenset({ARCHITECTURE})

    def __str__(self) -> str:
        length = f"{self.steps} steps" if self.steps is not None else f"{self.epochs} epochs"
        return f"teacher of {length}"

    def requires(self) -> dict[str, Prerequisite]:
        return {}

    def build(self, problem: Problem) -> dict[str, Tensor]:
        """The state of the trained network."""
        net = problem.make_net(problem.rng("teacher", "network"))
        draws = problem.rng("teacher", "training")
        n = len(problem.images)
        counting.announce(self.n_steps(n), self.batch_size, n)
        train(net, problem.images, problem.labels, self, draws, problem.preprocess)
        return dict(net.state_dict())
