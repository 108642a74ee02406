"""GradMatch: Gradient Matching based Data Subset Selection (Killamsetty et al., ICML 2021, algorithm 2).

Deviations: the gradients are those of a trained network, once (the paper: anew every R epochs of the training
on the subset); exactly `ipc` images a class, without the paper's tolerance; and those of
`methods.blocks.weighted`.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor

from bench.core.search import Search
from methods.blocks.weighted import LastGradients, WeightedCoreset


def nonnegative(products: Tensor, with_mean: Tensor, ridge: float) -> Tensor:
    """The weights w >= 0 of least |sum of w_i g_i - mean|^2 + ridge |w|^2.

    Args:
        products: inner products of the gradients g, [k,k].
        with_mean: their inner products with the mean, [k].
        ridge: lambda, above 0.

    Returns:
        [k].
    """
    from scipy.optimize import nnls  # takes a while to import, and planning loads every method

    lower = torch.linalg.cholesky(products + ridge * torch.eye(len(products)).to(products))
    free = torch.cholesky_solve(with_mean[:, None], lower)[:, 0]
    if bool((free >= 0).all()):  # no bound is in the way
        return free
    right = torch.linalg.solve_triangular(lower, with_mean[:, None], upper=False)[:, 0]
    return torch.from_numpy(nnls(lower.T.numpy(), right.numpy())[0]).to(products)


def matching_pursuit(gradients: LastGradients, k: int, ridge: float) -> tuple[Tensor, Tensor]:
    """Orthogonal matching pursuit of the mean gradient with weights of at least 0.

    Each step adds the gradient that points most along what is left of the mean, and fits all weights again.

    Args:
        gradients: of one class, n of them.
        k: how many to choose, at most n.
        ridge: lambda.

    Returns:
        Positions int64 [k], in the order in which they were chosen, and weights [k].
    """
    target = gradients.products_with_mean()
    left, free = target, torch.ones(len(target), dtype=torch.bool, device=target.device)
    chosen = torch.zeros(0, dtype=torch.int64, device=target.device)
    products = target.new_empty(len(target), k)
    for i in range(k):
        best = left.masked_fill(~free, -torch.inf).argmax()
        free[best] = False
        chosen = torch.cat([chosen, best[None]])
        products[:, i] = gradients.products(best[None])[:, 0]
        known = products[:, : i + 1]
        weights = nonnegative(known[chosen], target[chosen], ridge)
        left = target - known @ weights
    return chosen, weights


@dataclass(frozen=True)
class GradMatch(WeightedCoreset):
    """Real images whose weighted gradients sum to the mean gradient of their class."""

    paper: ClassVar[str] = "Killamsetty et al., GRAD-MATCH, ICML 2021"
    lazy_imports: ClassVar[tuple[str, ...]] = ("scipy.optimize",)

    ridge: Annotated[float, Gt(0), Search(0.01, 100)] = 1.0  # lambda

    def choose(self, gradients: LastGradients, k: int) -> tuple[Tensor, Tensor]:
        """Orthogonal matching pursuit: algorithm 2 of Killamsetty et al. (ICML 2021)."""
        return matching_pursuit(gradients.on_host(), k, self.ridge)  # weights at 0 are found there


METHOD = GradMatch
