"""Forgetting events: An Empirical Study of Example Forgetting (Toneva et al., ICLR 2019), algorithm 1.

Deviations: those of `methods.blocks.scores`.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from methods.blocks.scores import ScoreCoreset


def forgetting_events(right: Tensor) -> Tensor:
    """How often each image is forgotten: right after one epoch, and wrong after the next.

    Args:
        right: whether each image is classified correctly after each epoch, bool [epochs,N].

    Returns:
        int64 [N]; the number of epochs, which is more than any count, for images that are never right.
    """
    events = (right[:-1] & ~right[1:]).sum(0)
    return events.masked_fill(~right.any(0), len(right))


@dataclass(frozen=True)
class Forgetting(ScoreCoreset):
    """Real images by how often the network forgets them."""

    paper: ClassVar[str] = "Toneva et al., An Empirical Study of Example Forgetting, ICLR 2019"

    def hardness(self, dynamics: dict[str, Tensor]) -> Tensor:
        """The number of forgetting events; never learned is hardest."""
        return forgetting_events(dynamics["true"] > dynamics["other"])


METHOD = Forgetting
