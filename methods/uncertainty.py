"""Uncertainty of the trained network (Coleman et al., Selection via Proxy, ICLR 2020, section 2).

Deviations: those of `methods.blocks.scores`.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from bench.core.registry import choose
from methods.blocks.scores import ScoreCoreset

Measure = Literal["least_confidence", "margin", "entropy"]


def uncertainty(probabilities: Tensor, measure: str) -> Tensor:
    """How uncertain a network is.

    Args:
        probabilities: [N,K].
        measure: "least_confidence", 1 - max p; "margin", 1 - (the largest p - the second); "entropy",
            -sum p log p.

    Returns:
        [N]; larger is less certain.

    Raises:
        UserError: for another measure.
    """
    choose("measure", measure, ("least_confidence", "margin", "entropy"))
    if measure == "entropy":
        return -probabilities.xlogy(probabilities).sum(1)
    largest = probabilities.topk(2, dim=1).values
    return 1 - largest[:, 0] + (largest[:, 1] if measure == "margin" else 0)


@dataclass(frozen=True)
class Uncertainty(ScoreCoreset):
    """Real images by how uncertain the trained network is of them."""

    paper: ClassVar[str] = "Coleman et al., Selection via Proxy, ICLR 2020"

    measure: Measure = "least_confidence"

    def hardness(self, dynamics: dict[str, Tensor]) -> Tensor:
        """The least certain is hardest."""
        return uncertainty(dynamics["probabilities"], self.measure)


METHOD = Uncertainty
