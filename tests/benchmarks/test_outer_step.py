"""An outer step of trajectory matching at MTT's size: as its authors' code takes it, and as it is taken here.

ConvNet-3 of width 128, all 10 images of 32x32 pixels in each inner step, 10 of the 50 steps.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.hypergradient import AUGMENT, Case, adjoint, gap, unroll
from helpers.meter import DEVICE, OperationCost, StepClock, Summary, count_operations

from bench.core.networks.architecture import parse_architecture
from bench.core.random import generator
from methods.blocks.hypergradient import ROOM, SGD, FlatNetwork, Hypergradient
from methods.blocks.inner_batches import shuffled_batches
from methods.blocks.objectives import trajectory_distance

STEPS = 10
CLOCK = StepClock(DEVICE)
WAYS: dict[str, Callable[[Case], Hypergradient]] = {
    "whole graph, usual layout": unroll,  # torch's own layers and autograd through all steps
    "graphs rebuilt": adjoint,
    "graphs kept": lambda case: adjoint(case, room=ROOM),
    "tesla, graphs rebuilt": lambda case: adjoint(case, gradient="tesla"),
    "tesla, graphs kept": lambda case: adjoint(case, gradient="tesla", room=ROOM),
}


@pytest.fixture(scope="module")
def summary(request: pytest.FixtureRequest) -> Summary:
    table = Summary()
    request.config.pluginmanager.register(table)
    return table


@pytest.fixture(scope="module")
def case() -> Case:
    g = generator(0, "outer step")
    net = FlatNetwork(parse_architecture("convnet").build((3, 32, 32), 10, g).to(DEVICE))
    start = net.weights()
    target = start + 0.01 * torch.randn(start.shape, generator=g).to(DEVICE)
    return Case(
        net=net,
        rule=SGD(),
        images=torch.randn(10, 3, 32, 32, generator=g).to(DEVICE).requires_grad_(),
        targets=torch.arange(10, device=DEVICE),
        lr=torch.tensor(0.01, device=DEVICE, requires_grad=True),
        momentum=None,
        batches=shuffled_batches(10, 10, STEPS, g, AUGMENT, device=DEVICE),
        start=SGD().start(start),
        outer=lambda weights: trajectory_distance(weights, start, target),
    )


@pytest.mark.benchmark(timer=lambda: CLOCK.seconds)
@pytest.mark.parametrize("way", WAYS)
def test_outer_step(benchmark: Any, summary: Summary, case: Case, way: str) -> None:
    cost = OperationCost()
    with count_operations(cost, DEVICE):
        WAYS[way](case)

    def timed() -> Hypergradient:
        with CLOCK.running():
            return WAYS[way](case)

    found = benchmark.pedantic(timed, rounds=5)
    summary.note(benchmark, cost, method="outer step", step=way, size="paper", inner_steps=STEPS)
    if "tesla" not in way:
        assert gap(found.images, unroll(case).images) < 1e-2
