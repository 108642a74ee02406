"""What is matched. An objective takes networks and batches and never asks what produced the batch."""

from torch import Tensor


def distribution_matching(real: Tensor, synthetic: Tensor, n_classes: int) -> Tensor:
    """Squared distance of the mean embeddings, summed over classes (Zhao & Bilen, WACV 2023, eq. 4).

    Both are class-major: real [K*B,D] and synthetic [K*n,D].
    """
    gap = real.unflatten(0, (n_classes, -1)).mean(1) - synthetic.unflatten(0, (n_classes, -1)).mean(1)
    return gap.square().sum()
