"""Principal directions of a training set, with an explicit generator and little memory."""

import torch
from torch import Tensor

from bench.core.method import Problem
from methods.blocks.parameterise.resample import shrink

PCA_PIECE = 10_000  # images converted to floats at a time
SPARE, ROUNDS = 8, 16  # extra directions of the iteration, and its number of products with the data


def small_images(problem: Problem, side: int) -> Tensor:
    """All training images, normalised and shrunk to `side` pixels: [N,C,side,side]."""
    return torch.cat([shrink(problem.preprocess(x), side) for x in problem.images.split(PCA_PIECE)])


def principal_directions(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The leading right singular vectors of a matrix, which is not centred, by subspace iteration.

    They are exact if the singular values drop after them, and near-optimal otherwise.

    Args:
        rows: the matrix [N,D].
        count: how many, at most min(N, D).
        generator: a CPU generator for the start of the iteration.

    Returns:
        Orthonormal rows [count,D], largest singular value first.
    """
    n, d = rows.shape
    start = torch.randn(d, min(count + SPARE, n, d), generator=generator)
    basis = start.to(rows)
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(rows.T @ (rows @ basis)).Q
    _, _, rotation = torch.linalg.svd(rows @ basis, full_matrices=False)
    return rotation[:count] @ basis.T
