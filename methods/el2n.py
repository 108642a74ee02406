"""EL2N: Deep Learning on a Data Diet (Paul, Ganguli & Dziugaite, NeurIPS 2021), section 2.

Deviations: one network (the paper averages ten; CCS takes one); the sum over epochs is that of the authors of
CCS; and those of `methods.blocks.scores`.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt
from torch import Tensor

from methods.blocks.scores import ScoreCoreset


@dataclass(frozen=True)
class EL2N(ScoreCoreset):
    """Real images by the norm of the network's error early in training."""

    paper: ClassVar[str] = "Paul, Ganguli & Dziugaite, Deep Learning on a Data Diet, NeurIPS 2021"

    first_epochs: Annotated[int, Gt(0)] = 10  # the error is summed over; all, where there are fewer

    def hardness(self, dynamics: dict[str, Tensor]) -> Tensor:
        """The sum over the first epochs of |p - onehot|."""
        return dynamics["error"][: self.first_epochs].sum(0)


METHOD = EL2N
