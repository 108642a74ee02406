"""GraNd: Deep Learning on a Data Diet (Paul, Ganguli & Dziugaite, NeurIPS 2021), section 2.

Deviations: the gradient of the last layer (the paper: of all weights), as in DeepCore; and those of
`methods.blocks.scores`.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt

from bench.core.distilled import DistilledDataset
from bench.core.method import Prerequisite, Problem
from methods.blocks.dynamics import Dynamics
from methods.blocks.scores import ScoreCoreset, select_by_score


@dataclass(frozen=True)
class GradNorm(ScoreCoreset):
    """Real images by the norm of their gradient early in training, averaged over networks."""

    paper: ClassVar[str] = "Paul, Ganguli & Dziugaite, Deep Learning on a Data Diet, NeurIPS 2021 (GraNd)"

    network_epochs: Annotated[int, Gt(0)] = 1  # after which the gradient is taken
    members: Annotated[int, Gt(0)] = 10  # networks that its norm is averaged over

    def requires(self) -> dict[str, Prerequisite]:
        """The beginnings of several trainings on the real set."""
        return {f"dynamics/{i}": Dynamics(self.network_epochs, member=i) for i in range(self.members)}

    def distill(self, problem: Problem) -> DistilledDataset:
        """The mean norm after the last of the epochs; the largest is hardest."""
        norms = [problem.prepared[role]["gradient"][-1] for role in self.requires()]
        return select_by_score(problem, torch.stack(norms).mean(0), self.pick, self.repeat)


METHOD = GradNorm
