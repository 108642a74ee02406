"""A memory of bases that all classes share (RTP; Deng & Russakovsky, NeurIPS 2022, section 3.1)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.core import random
from bench.core.errors import OverBudget, UserError
from bench.core.method import Problem
from bench.core.preprocess import Preprocess
from bench.core.registry import choose
from methods.blocks.parameterise.base import (
    LABEL_KINDS,
    Balanced,
    first_logits,
    kappa,
    label_floats,
    most_within,
    random_members,
)
from methods.blocks.parameterise.pca import principal_directions, small_images
from methods.blocks.parameterise.resample import bilinear, resample, shrink

LINEAR_INITS = ("xavier", "pca")
QUERIES = ("onehot", "learned", "centroid")
QUERY_DIM = 16


class LinearBases(Balanced):
    """Image i of class c is U(q_c A_i M), with K bases M, r address matrices A_i and a query q_c per class.

    U is bilinear up-sampling. It is linear, so the K bases are up-sampled once and then combined:
    U(A M) = A U(M). The images span at most K dimensions. They are normalised, and not clamped.

    Args:
        bases: M, [K,C,h,w].
        addresses: A, [r,d,K].
        downsample: how many times smaller the bases are than the images.
        preprocess: how pixels become what networks see.
        queries: q, [n_classes,d]; by default they are one-hot with d = n_classes, and nothing is stored.
        learned_queries: whether the queries are learned.
        basis_labels: z, [K,n_classes], each basis's part of the targets ("joint" labels): the logits of an
            image are kappa e_c + sum_k coefficient_k z_k, see `kappa`.
        common: `label_logits`, `inner_lr` and `inner_momentum` of `Balanced`.
    """

    bases: nn.Parameter
    addresses: nn.Parameter
    queries: nn.Parameter | Tensor | None
    basis_labels: nn.Parameter | None

    def __init__(
        self,
        bases: Tensor,
        addresses: Tensor,
        downsample: int,
        preprocess: Preprocess,
        *,
        queries: Tensor | None = None,
        learned_queries: bool = False,
        basis_labels: Tensor | None = None,
        **common: Tensor | None,
    ) -> None:
        if downsample < 1:
            raise ValueError(f"downsample {downsample} is below 1")
        n_classes = addresses.shape[1] if queries is None else len(queries)
        super().__init__(n_classes, len(addresses), preprocess, **common)
        self.learn(bases=bases, addresses=addresses, basis_labels=basis_labels)
        if learned_queries:
            self.learn(queries=queries)
        else:
            self.register_buffer("queries", queries)
        self.downsample, self.learned_queries = downsample, learned_queries

    @staticmethod
    def count(
        problem: Problem,
        *,
        bases: int = 16,
        downsample: int = 2,
        queries: str = "onehot",
        query_dim: int | None = None,
        init: str = "xavier",
        labels: str = "hard",
    ) -> int:
        """How many addresses, which are images per class, fit in the budget beside the bases.

        The arguments are those of `start`, and so is what it raises.
        """
        choose("init", init, LINEAR_INITS)
        choose("kind of queries", queries, QUERIES)
        choose("kind of labels", labels, (*LABEL_KINDS, "joint"))
        if query_dim is not None and queries == "onehot":
            raise UserError(
                "one-hot queries have n_classes numbers: leave query_dim out, or learn the queries"
            )
        dim = _query_dim(problem, queries, query_dim)
        r = _images_per_class(problem, bases, downsample, dim, queries, labels)
        channels, side, _ = problem.image_shape
        n, size = len(problem.images), channels * (side // downsample) ** 2
        if init == "pca" and bases > min(n, size):
            raise UserError(f"no {bases} principal directions of {n} images of {size} numbers: take fewer")
        return r

    @classmethod
    def start(
        cls,
        problem: Problem,
        generator: torch.Generator,
        *,
        bases: int = 16,
        downsample: int = 2,
        queries: str = "onehot",
        query_dim: int | None = None,
        init: str = "xavier",
        labels: str = "hard",
    ) -> "LinearBases":
        """The initial set: the bases, and as many addresses as fit in the rest of the budget.

        Args:
            problem: the training set and the budget.
            generator: a CPU generator.
            bases: K.
            downsample: how many times smaller the bases are than the images; it must divide their side.
            queries: "onehot"; "learned", initially random unit vectors; or "centroid", fixed to the class
                means as `embed` projects them.
            query_dim: d, of queries that are not one-hot; 16 by default.
            init: "xavier", uniform as for two embedding tables of n_classes * r rows and of K rows; or
                "pca", the principal directions of the shrunk training images, and the coefficients of random
                real images.
            labels: "hard", "class", "image" (see `label_floats`), or "joint".

        Returns:
            The set, on the problem's device.

        Raises:
            UserError: an argument is invalid, or no address fits; the message says which numbers would fit.
        """
        r = cls.count(
            problem,
            bases=bases,
            downsample=downsample,
            queries=queries,
            query_dim=query_dim,
            init=init,
            labels=labels,
        )
        dim = _query_dim(problem, queries, query_dim)
        q = _first_queries(problem, queries, dim, downsample, generator)
        make = _pca if init == "pca" else _xavier
        memory, addresses = make(problem, bases, downsample, r, dim, q, generator)
        joint = torch.zeros(bases, problem.n_classes) if labels == "joint" else None
        logits = None if labels == "joint" else first_logits(labels, problem.n_classes, r)
        learned = {"queries": q, "basis_labels": joint, "label_logits": logits}
        stored = cls(
            memory,
            addresses,
            downsample,
            problem.preprocess,
            learned_queries=queries == "learned",
            **learned,
        )
        return stored.to(problem.device)

    def config(self) -> dict[str, Any]:
        """The down-sampling, and whether the queries are learned."""
        return {"downsample": self.downsample, "learned_queries": self.learned_queries}

    def recall(self, queries: Tensor) -> Tensor:
        """The images [m*r,C,H,W] of queries [m,d], query after query; linear in the queries."""
        return self.combine(self._address(queries))

    def fit(self, images: Tensor, ridge: float) -> Tensor:
        """The coefficients a that approximate images x best: min |a U(M) - x|^2 + ridge |a|^2.

        Args:
            images: normalised [n,C,H,W].
            ridge: weight of the penalty.

        Returns:
            The coefficients [n,K].
        """
        memory = self._enlarged().flatten(1)
        gram = memory @ memory.T + ridge * torch.eye(len(memory), dtype=memory.dtype, device=memory.device)
        return torch.linalg.solve(gram, memory @ images.flatten(1).T).T

    def combine(self, coefficients: Tensor) -> Tensor:
        """Combine the up-sampled bases: coefficients [n,K] -> images [n,C,H,W]."""
        memory = self._enlarged()
        return (coefficients @ memory.flatten(1)).unflatten(1, memory.shape[1:])

    @property
    def embeds(self) -> bool:
        """Whether the queries are centroids, so that `embed` can make one for a new class."""
        return self.queries is not None and not self.learned_queries

    def embed(self, images: Tensor) -> Tensor:
        """The query [d] of a new class from its normalised images [n,C,H,W]; for "centroid" queries only.

        Raises UserError for other queries.
        """
        if self.queries is None or self.learned_queries:
            raise UserError("learned and one-hot queries know no new class: distill with centroid queries")
        mean = images.mean(0, keepdim=True)
        return _embed(shrink(mean, self.bases.shape[-1]), self.queries.shape[1])[0]

    def _address(self, queries: Tensor) -> Tensor:
        """Coefficients [m*r,K] of queries [m,d]."""
        return torch.einsum("md,rdk->mrk", queries, self.addresses).flatten(0, 1)

    def _coefficients(self, items: Tensor | None) -> Tensor:
        """The coefficients [n,K] of the decoded images."""
        if self.queries is None:
            rows = self.addresses.transpose(0, 1).flatten(0, 1)
        else:
            rows = self._address(self.queries)
        return rows if items is None else rows[items]

    def _enlarged(self) -> Tensor:
        """U(M): [K,C,H,W]."""
        side = self.bases.shape[-1]
        return resample(self.bases, bilinear(side, side * self.downsample, self.bases))

    def _images(self, items: Tensor | None) -> Tensor:
        return self.combine(self._coefficients(items))

    def _logits(self, items: Tensor | None) -> Tensor | None:
        if self.basis_labels is None:
            return super()._logits(items)
        labels = self.labels if items is None else self.labels[items]
        own = labels[:, None] == torch.arange(self.n_classes, device=labels.device)
        return kappa(self.n_classes) * own + self._coefficients(items) @ self.basis_labels


def _query_dim(problem: Problem, queries: str, query_dim: int | None) -> int:
    return problem.n_classes if queries == "onehot" else query_dim or QUERY_DIM


def _images_per_class(
    problem: Problem, bases: int, downsample: int, dim: int, queries: str, labels: str
) -> int:
    """r, the number of addresses that fit the budget. Raises UserError if not even one does."""
    n_classes, (channels, side, _) = problem.n_classes, problem.image_shape
    if bases < 1 or downsample < 1 or side % downsample:
        fine = ", ".join(str(s) for s in range(1, side + 1) if side % s == 0)
        raise UserError(f"{bases} bases at downsample {downsample}: take at least 1 base and one of {fine}")

    def floats(k: int, s: int, r: int) -> int:
        named = 0 if queries == "onehot" else n_classes * dim
        targets = k * n_classes if labels == "joint" else label_floats(labels, n_classes, r)
        return k * channels * (side // s) ** 2 + r * dim * k + named + targets

    r = most_within(problem.budget, lambda r: floats(bases, downsample, r))
    if r < 1:
        most = most_within(problem.budget, lambda k: floats(k, downsample, 1))
        coarser = (s for s in range(downsample + 1, side + 1) if side % s == 0)
        fits = [f"downsample {s}" for s in coarser if floats(bases, s, 1) <= problem.budget][:1]
        ways = [f"at most {most} bases"] * (most > 0) + fits + ["a larger ipc"]
        raise OverBudget(
            f"{bases} bases at downsample {downsample} with one address take "
            f"{floats(bases, downsample, 1):,} of {problem.budget:,} floats: take {' or '.join(ways)}"
        )
    return r


def _first_queries(
    problem: Problem, queries: str, dim: int, downsample: int, generator: torch.Generator
) -> Tensor | None:
    """Initial queries [n_classes,dim] of unit length, or None for one-hot ones."""
    if queries == "onehot":
        return None
    if queries == "learned":
        return F.normalize(torch.randn(problem.n_classes, dim, generator=generator))
    small = small_images(problem, problem.image_shape[1] // downsample)
    member = F.one_hot(problem.labels, problem.n_classes).to(small)
    sums = (member.T @ small.flatten(1)).unflatten(1, small.shape[1:])
    return _embed(sums / member.sum(0).clamp(min=1).view(-1, 1, 1, 1), dim)


def _embed(means: Tensor, dim: int) -> Tensor:
    """Shrunk class means [n,C,h,w] -> unit queries [n,dim], by one fixed Gaussian projection."""
    flat = means.flatten(1)
    shape = (flat.shape[1], dim)
    projection = torch.randn(shape, generator=random.generator(0, "centroid queries", *shape))
    return F.normalize(flat @ projection.to(flat))


def _xavier(
    problem: Problem,
    k: int,
    downsample: int,
    r: int,
    dim: int,
    queries: Tensor | None,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Bases [K,C,h,w] and addresses [r,dim,K] from U(-1, 1) * sqrt(6 / (rows + columns)) of their tables."""
    channels, side, _ = problem.image_shape
    h = side // downsample

    def table(shape: tuple[int, ...], rows: int, columns: int) -> Tensor:
        bound = math.sqrt(6 / (rows + columns))
        return (2 * torch.rand(shape, generator=generator) - 1) * bound

    return table((k, channels, h, h), k, channels * h * h), table((r, dim, k), dim * r, k)


def _pca(
    problem: Problem,
    k: int,
    downsample: int,
    r: int,
    dim: int,
    queries: Tensor | None,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The first K principal directions of the shrunk images, and addresses of r random images of each class.

    With queries that are not one-hot, the addresses are those that come closest.
    """
    small = small_images(problem, problem.image_shape[1] // downsample)
    rows = small.flatten(1)
    directions = principal_directions(rows, k, generator)
    chosen = random_members(problem, r, generator)
    wanted = (rows @ directions.T)[chosen].unflatten(0, (problem.n_classes, r))
    if queries is not None:
        wanted = torch.einsum("dc,crk->drk", torch.linalg.pinv(queries).to(wanted), wanted)
    return directions.unflatten(1, small.shape[1:]), wanted.transpose(0, 1).contiguous()
