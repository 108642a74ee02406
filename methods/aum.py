"""AUM: Identifying Mislabeled Data using the Area Under the Margin Ranking (Pleiss et al., NeurIPS 2020).

Deviations: the margin of probabilities, as in CCS (the paper: of logits), summed (the paper: averaged) over
the epochs; and those of `methods.blocks.scores`.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from methods.blocks.dynamics import area_under_margin
from methods.blocks.scores import ScoreCoreset


@dataclass(frozen=True)
class AUM(ScoreCoreset):
    """Real images by the margin of their class in the course of training."""

    paper: ClassVar[str] = "Pleiss et al., Area Under the Margin Ranking, NeurIPS 2020"

    def hardness(self, dynamics: dict[str, Tensor]) -> Tensor:
        """The lowest area under the margin is hardest."""
        return -area_under_margin(dynamics["true"], dynamics["other"])


METHOD = AUM
