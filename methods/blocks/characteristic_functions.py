"""Characteristic functions: distributions of features compared at random frequencies."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.core import timing
from bench.core.transfer import to_device

SCALE = 300.0  # of the loss, as in the authors' code
LEAST = 1e-12  # of a squared distance: the root has no gradient at 0
PIECE = 512  # frequencies at a time, so that many real images need little memory


@timing.charged("synthetic gradient")
def characteristic_function(
    real: Tensor, synthetic: Tensor, n_classes: int, generator: torch.Generator, frequencies: int = 4096
) -> Tensor:
    """Distance of the characteristic functions of real and synthetic features, summed over classes.

    The characteristic function of a class at frequency t is the mean of exp(i <t, feature>) over its images.
    Amplitude and phase weigh alike; then their part at a frequency, 0.5 (|a| - |b|)^2 + (|a||b| - Re a Re b -
    Im a Im b), is half of the squared distance |a - b|^2. The loss is 300 x the mean of its root.

    Args:
        real: embeddings [K*B,D], class after class; they are scaled to norm 1 here, as the others are.
        synthetic: embeddings [K*n,D], class after class.
        n_classes: K.
        generator: draws the frequencies from N(0, 1), the same for all classes.
        frequencies: how many.

    Returns:
        The loss, 0-dim.

    References:
        Wang et al. (NCFM), CVPR 2025, eq. 5 to 7.
    """
    t = torch.randn(frequencies, real.shape[1], generator=generator, dtype=real.dtype)
    t = to_device(t, real.device)
    gap = _values(real, n_classes, t) - _values(synthetic, n_classes, t)
    return SCALE * (gap.square().sum(0).clamp(min=LEAST) / 2).sqrt().mean(1).sum()


def _values(features: Tensor, n_classes: int, t: Tensor) -> Tensor:
    """Real and imaginary part of each class's characteristic function at each frequency, [2,K,F]."""
    directions = F.normalize(features, dim=1)

    def at(some: Tensor) -> Tensor:
        angles = (directions @ some.T).unflatten(0, (n_classes, -1))
        return torch.stack([angles.cos().mean(1), angles.sin().mean(1)])

    return torch.cat([at(some) for some in t.split(PIECE)], dim=2)
