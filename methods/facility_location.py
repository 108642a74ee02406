"""CRAIG: Coresets for Data-efficient Training of Machine Learning Models (Mirzasoleiman et al., ICML 2020).

Algorithm 1, for a fixed number of images. Deviations: the gradients are those of a trained network, once (the
paper: anew as the training on the coreset goes on); and those of `methods.blocks.weighted`.

The greedy is ours. apricot-select (0.6.1, of February 2021, the last release) picks the same 50 of 5,000
images in the same order in 3.2 times the time (one core, its lazy optimiser), and needs numba; submodlib has
no package.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bench.core.transfer import to_host
from methods.blocks.weighted import LastGradients, WeightedCoreset

AT_ONCE = 32  # gains that are computed together
ROWS = 1000  # of the distances that are computed together


def distances(gradients: LastGradients) -> Tensor:
    """Euclidean distances between all gradients, float32 [n,n]: the largest class decides how much memory."""
    squares = gradients.error.square().sum(1) * gradients.inputs.square().sum(1)
    found = torch.empty(len(squares), len(squares), device=squares.device)
    for first in range(0, len(squares), ROWS):  # the half below the diagonal, and its mirror image
        rest = LastGradients(gradients.error[first:], gradients.inputs[first:])
        some = squares[first : first + ROWS]
        products = rest.products(torch.arange(len(some), device=some.device))
        below = (squares[first:, None] + some - 2 * products).clamp_(min=0).sqrt_().to(found.dtype)
        found[first:, first : first + ROWS] = below
        found[first : first + ROWS, first:] = below.T
    return found.fill_diagonal_(0)


def facility_location(similarity: Tensor, k: int) -> Tensor:
    """Choose greedily k images that maximise the sum over all images of the similarity to their nearest.

    Gains only shrink as images are chosen, so an old gain bounds the new one: only the largest are computed
    anew (lazy greedy, Minoux 1978).

    Args:
        similarity: symmetric, at least 0, [n,n].
        k: how many to choose, at most n.

    Returns:
        Their positions, int64 [k], in the order in which they were chosen.
    """
    covered = similarity.new_zeros(len(similarity))
    bounds, chosen = similarity.sum(0), []
    for _ in range(k):
        done = torch.zeros(len(bounds), dtype=torch.bool, device=bounds.device)
        while not done[best := bounds.argmax()]:
            largest = bounds.topk(min(AT_ONCE, len(bounds))).indices
            gains = (similarity[largest] - covered).clamp_(min=0).sum(1)
            bounds[largest] = gains.where(bounds[largest] >= 0, bounds[largest])
            done[largest] = True
        chosen.append(best)
        covered = torch.maximum(covered, similarity[best])
        bounds[best] = -1  # never chosen again, even if all images are identical
    return torch.stack(chosen)


@dataclass(frozen=True)
class FacilityLocation(WeightedCoreset):
    """Real images whose gradients are near to all of their class; weights are the sizes of their clusters."""

    paper: ClassVar[str] = "Mirzasoleiman et al., Coresets for Data-efficient Training (CRAIG), ICML 2020"

    def choose(self, gradients: LastGradients, k: int) -> tuple[Tensor, Tensor]:
        """Lazy greedy on similarity = the largest distance - distance; each image joins its nearest."""
        distance = distances(gradients)
        largest = distance.max()
        similarity = distance.neg_().add_(largest)
        similarity = to_host(similarity)  # how many gains are computed depends on them
        chosen = facility_location(similarity, k)
        return chosen, similarity[:, chosen].argmax(1).bincount(minlength=k).to(similarity.dtype)


METHOD = FacilityLocation
