"""Networks and images for the tests of bench.core.networks."""

import torch
from torch import nn

from bench.core import random
from bench.core.networks.architecture import FAMILIES, parse_architecture
from bench.core.networks.base import Network
from bench.core.networks.external import ExternalNetwork

Shape = tuple[int, int, int]
OWN = sorted(
    name for name, family in FAMILIES.items() if not issubclass(family, ExternalNetwork)
)  # not of a library


def build(name: str, shape: Shape = (3, 32, 32), n_classes: int = 10, seed: int = 0) -> Network:
    architecture = parse_architecture(name)
    architecture.check(shape)
    return architecture.build(shape, n_classes, random.generator(seed, "test"))


def images(n: int, shape: Shape, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(n, *shape, dtype=dtype, generator=random.generator(0, "images"))


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def assert_from_the_generator_alone(name: str, shape: Shape) -> None:
    """Two builds of one seed agree whatever the global state, which they leave; another seed differs."""
    torch.manual_seed(987_654_321)
    torch.rand(3)
    before = torch.get_rng_state()
    one = build(name, shape, seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)  # another global state
    same, other = build(name, shape, seed=1).state_dict(), build(name, shape, seed=2).state_dict()
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])
