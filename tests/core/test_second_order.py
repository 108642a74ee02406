"""The layers that are fast to differentiate twice: the derivatives are right, in both layouts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.func import functional_call

from bench.core.networks.architecture import parse_architecture
from bench.core.networks.second_order import (
    LARGE,
    AvgPool2d,
    Conv2d,
    InstanceNorm,
    ReLU,
    channels_last,
    laid_out,
)
from bench.core.operations import OperationCounter
from bench.core.random import generator

PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "conv": (lambda: Conv2d(3, 4, 3, padding=1), lambda: nn.Conv2d(3, 4, 3, padding=1)),
    "strided": (lambda: Conv2d(3, 4, 3, 2, padding=1), lambda: nn.Conv2d(3, 4, 3, 2, padding=1)),
    "unbiased": (lambda: Conv2d(3, 4, 3, bias=False), lambda: nn.Conv2d(3, 4, 3, bias=False)),
    "norm": (lambda: InstanceNorm(3), lambda: nn.GroupNorm(3, 3)),
    "relu": (ReLU, nn.ReLU),
    "pool": (AvgPool2d, lambda: nn.AvgPool2d(2)),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed, "normal"), dtype=torch.float64)


def with_weights(make: Callable[[], nn.Module]) -> tuple[nn.Module, dict[str, Tensor]]:
    """In double precision, with weights that differ from the norm's ones and zeros."""
    module = make().double()
    named = enumerate(module.named_parameters())
    return module, {name: normal(*p.shape, seed=i + 1).requires_grad_() for i, (name, p) in named}


@pytest.mark.parametrize("side", [4, 5])
@pytest.mark.parametrize("kind", PAIRS)
def test_first_and_second_derivatives_equal_central_differences(kind: str, side: int) -> None:
    module, weights = with_weights(PAIRS[kind][0])
    x = normal(2, 3, side, side).requires_grad_()

    def through(x: Tensor, *values: Tensor) -> Tensor:
        given = laid_out(x)
        assert channels_last(given)
        return functional_call(module, dict(zip(weights, values, strict=True)), (given,))

    assert gradcheck(through, (x, *weights.values()))
    assert gradgradcheck(through, (x, *weights.values()))
    fixed = tuple(w.detach() for w in weights.values())
    assert gradgradcheck(lambda x: through(x, *fixed), (x,))
    if weights:
        assert gradgradcheck(lambda *values: through(x.detach(), *values), tuple(weights.values()))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", PAIRS)
def test_a_layer_is_torchs_own_and_to_the_last_bit_in_the_usual_layout(kind: str, last: bool) -> None:
    own, weights = with_weights(PAIRS[kind][0])
    torchs = PAIRS[kind][1]().double()
    x = normal(2, 3, 6, 6).requires_grad_()
    given = laid_out(x) if last else x

    def derivatives(module: nn.Module, x: Tensor) -> list[Tensor]:
        out = functional_call(module, weights, (x,))
        inputs = (x, *weights.values())
        first = grad(out.square().sum(), inputs, create_graph=True)
        second = grad(sum((d.square() * (i + 1)).sum() for i, d in enumerate(first)), inputs)
        return [out, *first, *second]

    found = derivatives(own, given)
    assert channels_last(found[0]) == last
    for one, two in zip(found, derivatives(torchs, x), strict=True):
        assert torch.equal(one, two) if not last else torch.allclose(one, two, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["convnet-d2-w8", "convnet-d2-w8-group-gelu-max", "resnet10-w4"])
def test_a_network_has_the_same_curvature_in_both_layouts(name: str, channels: int) -> None:
    """Its gradient times a vector, differentiated in images and weights; of colour and of grey images."""
    net = parse_architecture(name).build((channels, 16, 16), 10, generator(0, "net")).double()
    weights = list(net.parameters())
    x, y = normal(4, channels, 16, 16).requires_grad_(), torch.arange(4)
    along = [normal(*w.shape, seed=i) for i, w in enumerate(weights)]

    def curvature(layout: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        first = grad(F.cross_entropy(net(layout(x)), y), weights, create_graph=True)
        return grad(first, [x, *weights], along, materialize_grads=True)

    for one, two in zip(curvature(laid_out), curvature(lambda x: x), strict=True):
        assert (one - two).norm() <= 1e-11 * two.norm() + 1e-12


def test_zeros_are_not_differentiated_through() -> None:
    """A weight of exactly 0 in a norm leaves all derivatives finite."""
    norm = InstanceNorm(3).double()
    nn.init.zeros_(norm.weight)
    x = normal(2, 3, 4, 4).requires_grad_()
    inputs: list[Any] = [x, *norm.parameters()]
    first = grad(norm(laid_out(x)).pow(3).sum(), inputs, create_graph=True)
    second = grad(sum(d.square().sum() for d in first), inputs, materialize_grads=True)
    assert all(torch.isfinite(d).all() for d in (*first, *second))


@pytest.mark.parametrize("leaf", [False, True])
def test_a_convolution_computes_only_the_derivatives_that_are_asked_for(leaf: bool) -> None:
    """As torch's own does; but what is asked of a leaf cannot be told, and is always computed."""
    conv, x = Conv2d(3, 4, 3), torch.randn(2, 3, 6, 6, requires_grad=True)
    weights = dict(conv.named_parameters())

    def flops(*inputs: Tensor) -> int:
        given = weights if leaf else {name: w * 1 for name, w in weights.items()}
        out = functional_call(conv, given, (laid_out(x),))
        with OperationCounter() as counter:
            grad(out.sum(), inputs)
        return counter.flops

    both = flops(x, conv.weight)
    assert flops(conv.weight) == both / 2
    assert flops(x) == (both if leaf else both / 2)


@pytest.mark.parametrize("piece", [2**20, 2**15])
def test_large_maps_are_pooled_to_the_last_bit_as_by_torch(monkeypatch: Any, piece: int) -> None:
    """The output and both derivatives; whole and in pieces."""
    monkeypatch.setattr("bench.core.networks.second_order.PIECE", piece)
    x = torch.randn(9, 32, 32, 16, generator=generator(0)).requires_grad_()
    assert x.numel() >= LARGE

    def derivatives(pool: nn.Module) -> list[Tensor]:
        out = pool(x)
        (first,) = grad(out.pow(3).sum(), x, create_graph=True)
        return [out, first, *grad(first.pow(2).sum(), x)]

    for one, two in zip(derivatives(AvgPool2d()), derivatives(nn.AvgPool2d(2)), strict=True):
        assert torch.equal(one, two)


def test_large_maps_are_pooled_under_vmap() -> None:
    x = torch.randn(3, 2, 32, 64, 64, generator=generator(0))
    assert x[0].numel() >= LARGE

    def pooled_gradient(pool: nn.Module) -> Tensor:
        return torch.func.vmap(torch.func.grad(lambda x: pool(x).pow(3).sum()))(x)

    assert torch.equal(pooled_gradient(AvgPool2d()), pooled_gradient(nn.AvgPool2d(2)))
