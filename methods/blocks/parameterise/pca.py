"""Principal directions of a training set, with an explicit generator and in memory for K directions."""

import torch
from torch import Tensor

from bench.core.method import Problem
from methods.blocks.parameterise.resample import shrink

PCA_PIECE = 10_000  # images that are floats at a time
SPARE, ROUNDS = 8, 16  # directions beyond those asked for, and products with the data, of the iteration


def small_images(problem: Problem, side: int) -> Tensor:
    """All training images, normalised and shrunk to `side`: [N,C,side,side]."""
    return torch.cat([shrink(problem.preprocess(x), side) for x in problem.images.split(PCA_PIECE)])


def principal_directions(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Orthonormal [count,D]: the leading right singular vectors of rows [N,D], largest first, not centred.

    Subspace iteration: exact where the spectrum falls after them, near-optimal elsewhere.
    `count` is at most min(N, D).
    """
    n, d = rows.shape
    start = torch.randn(d, min(count + SPARE, n, d), generator=generator)
    basis = start.to(rows)
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(rows.T @ (rows @ basis)).Q
    _, _, rotation = torch.linalg.svd(rows @ basis, full_matrices=False)
    return rotation[:count] @ basis.T
