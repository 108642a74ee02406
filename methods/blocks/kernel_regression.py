"""Kernel ridge regression on a network's features: what is learned from a synthetic set in closed form."""

import torch
from torch import Tensor

from bench.core import timing
from bench.core.losses import regression_values

RIDGE = 1e-6  # times the mean of the kernel's diagonal
LEAST_DIAGONAL = 1e-12  # so that features that are all 0 predict 0


def predicted(real: Tensor, synthetic: Tensor, values: Tensor, ridge: float = RIDGE) -> Tensor:
    """Predictions f_t f_p^T (f_p f_p^T + ridge tr(f_p f_p^T) / n I)^-1 Y for the real images.

    The small system is solved in float64, as images that resemble each other make it nearly singular.

    Args:
        real: features f_t [N,D].
        synthetic: features f_p [n,D].
        values: Y [n,K].
        ridge: times the mean of the kernel's diagonal.

    Returns:
        Predictions [N,K] in the type of `real`, differentiable in all tensors.

    References:
        Zhou, Nezhadarya & Ba, FRePo, NeurIPS 2022, section 3.
    """
    support = synthetic.double()
    kernel = support @ support.T
    diagonal = kernel.diagonal().mean().clamp_min(LEAST_DIAGONAL)
    eye = torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
    # linalg.solve is this and a look whether it went well, for which it waits
    solution, _ = torch.linalg.solve_ex(kernel + ridge * diagonal * eye, values.double())
    return real @ (support.T @ solution).to(real.dtype)


def label_margin(values: Tensor) -> Tensor:
    """-min(y1 - y2, 1/K) of the two largest values of each label [n,K], mean: clear labels have the least."""
    first, second = values.topk(2, dim=1).values.unbind(1)
    return -(first - second).clamp_max(1 / values.shape[1]).mean()


@timing.charged("synthetic gradient")
def kernel_regression(
    real: Tensor,
    real_targets: Tensor,
    synthetic: Tensor,
    targets: Tensor,
    n_classes: int,
    *,
    ridge: float = RIDGE,
) -> Tensor:
    """Half of the squared error of kernel regression from synthetic to real images, and the label margin.

    Both sides' targets are centred first, see `regression_values`.

    Args:
        real: features [N,D].
        real_targets: classes int64 [N], or probabilities [N,K].
        synthetic: features [n,D].
        targets: of the synthetic images, classes int64 [n], or probabilities [n,K].
        n_classes: K.
        ridge: see `predicted`.

    Returns:
        The loss, mean over the real images, 0-dim; differentiable in features and synthetic targets.

    References:
        Zhou, Nezhadarya & Ba, FRePo, NeurIPS 2022, eq. 3.
    """
    values = regression_values(targets, n_classes, synthetic.dtype)
    wanted = regression_values(real_targets, n_classes, real.dtype)
    errors = (predicted(real, synthetic, values, ridge) - wanted).square().sum(1) / 2
    return errors.mean() + label_margin(values)
