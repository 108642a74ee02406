"""The graphs that the forward sweep of an inner run keeps, which the reverse sweep need not rebuild."""

import gc

import pytest
import torch
from helpers.hypergradient import (
    AUGMENT,
    N_IMAGES,
    RULES,
    Case,
    adjoint,
    assert_equal,
    make_case,
    smooth_net,
)
from helpers.meter import MemoryCounter
from torch import Tensor, nn

from bench.core.networks.architecture import parse_architecture
from bench.core.random import generator
from methods.blocks.hypergradient import FlatNetwork, Rule
from methods.blocks.step_graphs import GraphSize


class Passes(nn.Module):
    """Passes its images on, and counts how often."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        return x


def counted(case: Case) -> tuple[Passes, Case]:
    """The same case with an outer loss that does not call the network."""
    passes = Passes()
    net = FlatNetwork(nn.Sequential(passes, smooth_net()))
    return passes, case.but(net=net, outer=lambda w: w.square().sum())


def bytes_of_a_step(case: Case) -> int:
    """What autograd keeps of one gradient with a graph, counted from outside."""
    weights, batch = case.start.weights.clone().requires_grad_(), case.batches[0]
    images = case.images.detach()[batch.items].requires_grad_()
    with (size := GraphSize()):
        loss = nn.functional.cross_entropy(case.net(weights, images), case.targets[batch.items])
        torch.autograd.grad(loss, weights, create_graph=True)
    return size.bytes


def fields_network() -> Case:
    """ConvNet-2 in single precision, with layers whose gradient is the same with a graph and without."""
    case = make_case(steps=5).but(momentum=None)
    net = FlatNetwork(parse_architecture("convnet-d2-w8").build((3, 8, 8), 10, generator(0, "net")))
    images = torch.randn(N_IMAGES, 3, 8, 8, generator=generator(0, "images")).requires_grad_()
    lr, start = torch.tensor(0.01, requires_grad=True), case.rule.start(net.weights())
    return case.but(net=net, images=images, lr=lr, start=start, outer=lambda w: w.square().sum())


@pytest.mark.parametrize("gradient", ["exact", "tesla"])
@pytest.mark.parametrize("graphs", [0.5, 2.5, 100])
@pytest.mark.parametrize("segment", [None, 2])
def test_kept_graphs_change_no_bit_of_the_fields_network(
    graphs: float, gradient: str, segment: int | None
) -> None:
    case = fields_network()
    options = {"gradient": gradient, "segment": segment}
    one, two = adjoint(case, **options), adjoint(case, room=int(graphs * bytes_of_a_step(case)), **options)
    for field in ("loss", "images", "lr", "weights"):
        assert torch.equal(getattr(one, field), getattr(two, field))
    assert all(map(torch.equal, one.slots, two.slots))
    assert torch.equal(one.end.weights, two.end.weights)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("gradient", ["exact", "tesla"])
def test_kept_graphs_change_no_derivative(rule: Rule, gradient: str) -> None:
    """torch's own group norm takes another way with a graph, which moves the last bits."""
    case = make_case(rule=rule, steps=6, soft=True, strategy=AUGMENT)
    wanted = adjoint(case, window=5, gradient=gradient)
    for graphs in (0.5, 2.5, 100):
        room = int(graphs * bytes_of_a_step(case))
        assert_equal(adjoint(case, window=5, gradient=gradient, room=room), wanted, bound=1e-12)


@pytest.mark.parametrize(
    ("graphs", "segment", "passes"),
    [
        (0, None, 6 + 5),
        (0.5, None, 6 + 5),  # not one fits
        (2.5, None, 6 + 3),  # those of the last two steps
        (100, None, 6),
        (100, 2, 6 + 4),  # the last piece of one step is kept, the two before it are replayed once
    ],
)
def test_only_what_is_not_kept_is_computed_again(graphs: float, segment: int | None, passes: int) -> None:
    counter, case = counted(make_case(steps=6))
    room = int(graphs * bytes_of_a_step(case))
    counter.n = 0
    adjoint(case, window=5, room=room, segment=segment)
    assert counter.n == passes


def test_memory_stays_within_the_room() -> None:
    """Thrice as many steps as fit: only the room comes on top of what a run without graphs takes."""
    case = make_case(steps=12).but(momentum=None)
    room = 4 * bytes_of_a_step(case)

    def peak(room: int) -> int:
        with MemoryCounter() as watch:
            adjoint(case, room=room)
        return watch.peak

    grown = peak(room) - peak(0)
    assert 0.5 * room < grown < 1.2 * room


def test_a_kept_graph_is_freed_once_it_was_used() -> None:
    """Without the garbage collector: a second run takes no more memory than the first."""
    case = fields_network()
    peaks = []
    gc.disable()
    try:
        for times in (1, 3):
            with MemoryCounter() as watch:
                for _ in range(times):
                    adjoint(case, room=2**30)
            peaks.append(watch.peak)
    finally:
        gc.enable()
    assert peaks[1] < 1.1 * peaks[0]


def test_the_size_of_a_graph_counts_a_shared_tensor_once() -> None:
    x = torch.ones(1000, requires_grad=True)
    with (size := GraphSize()):
        y = x * x  # keeps x twice
        (y.view(10, 100) * 2).exp()  # keeps its result
    assert size.bytes == 4 * (1000 + 1000)
