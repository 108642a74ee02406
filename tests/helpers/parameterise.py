"""Problems of any shape, of random images, and what tests of the parameterisations share."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.core import random
from bench.core.distilled import DistilledDataset, load_distilled
from bench.core.method import Problem
from bench.core.preprocess import Preprocess

STATS = ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def no_net(_: torch.Generator) -> Any:
    raise AssertionError("a parameterisation knows no network")


def make(
    side: int = 8, channels: int = 3, n_classes: int = 3, ipc: int = 2, members: int = 6, smooth: bool = False
) -> Problem:
    """`members` random images of each class; smooth: constant ones, image i of class c has its own value."""
    n = n_classes * members
    labels = torch.arange(n) % n_classes
    if smooth:
        values = torch.randperm(256, generator=random.generator(0, "values"))[:n].to(torch.uint8)
        images = values.view(-1, 1, 1, 1).repeat(1, channels, side, side)
    else:
        shape = (n, channels, side, side)
        images = torch.randint(256, shape, dtype=torch.uint8, generator=random.generator(0, "images"))
    mean, std = STATS
    return Problem(
        images=images,
        labels=labels,
        n_classes=n_classes,
        ipc=ipc,
        preprocess=Preprocess(mean[:channels], std[:channels]),
        make_net=no_net,
        seed=0,
        prepared={},
    )


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=random.generator(seed, "noise", *shape))


def stir(distilled: Any, seed: int = 0) -> Any:
    """The same set in float64 with random parameters, as if it had been learned."""
    distilled = distilled.double()
    with torch.no_grad():
        for i, p in enumerate(distilled.parameters()):
            p += 0.3 * torch.randn(p.shape, dtype=p.dtype, generator=random.generator(seed, "stir", i))
    return distilled


def decoded(distilled: DistilledDataset, items: Tensor | None = None) -> Tensor:
    return distilled.decode(items)[0].detach()


def stored_again(distilled: DistilledDataset, path: Path) -> DistilledDataset:
    distilled.save(path / "data.safetensors")
    return load_distilled(path / "data.safetensors")


def some_items(distilled: Any, n: int = 7) -> Tensor:
    """Random positions, with repeats."""
    return torch.randint(distilled.n_classes * distilled.per_class, (n,), generator=random.generator(5))
