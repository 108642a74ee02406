"""The meter itself, in a plain test run: what it counts, what it times, what it prints."""

import time
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import meter as meter
from helpers.meter import OperationCost, StepClock, count_operations
from torch.autograd import grad
from torch.utils.flop_counter import FlopCounterMode

from bench.core import random
from bench.core.operations import OperationCounter


def double_backward() -> None:
    """Through a convolution and a linear map, as the gradient of a gradient takes it."""
    g = random.generator(0)
    x, kernel, weight = (torch.randn(s, generator=g) for s in ((2, 3, 8, 8), (4, 3, 3, 3), (10, 256)))
    for tensor in (x, kernel, weight):
        tensor.requires_grad_()
    y = F.linear(F.conv2d(x, kernel, padding=1).tanh().flatten(1), weight)
    first = grad(y.logsumexp(1).sum(), (kernel, weight), create_graph=True)
    grad(sum(g.square().sum() for g in first), x)


def test_operations_of_a_double_backward_are_those_of_pytorchs_counter() -> None:
    with FlopCounterMode(display=False) as theirs:
        double_backward()
    with OperationCounter() as ours:
        double_backward()
    assert ours.flops == theirs.get_total_flops()


def test_operations_of_matrix_products_by_hand() -> None:
    """Of y = x w^T and dw = 2 y^T x, each as many; and back through dw: to y, to x, and from y to x."""
    x, w = torch.ones(5, 7, requires_grad=True), torch.ones(3, 7, requires_grad=True)
    once = 2 * 5 * 7 * 3
    with OperationCounter() as watch:
        y = F.linear(x, w).square().sum()
        assert watch.flops == once
        (dw,) = grad(y, w, create_graph=True)
        assert watch.flops == 2 * once
        grad(dw.sum(), x)
    assert watch.flops == 5 * once


def test_a_cost_is_of_what_runs_inside() -> None:
    cost, x = OperationCost(), torch.ones(256, 256, device=meter.DEVICE)
    x @ x
    with count_operations(cost, meter.DEVICE):
        y = x @ x
        del y
        x @ x
    assert cost.flops == 2 * 2 * 256**3
    assert cost.peak_bytes >= x.nbytes
    assert meter.DEVICE.type == "cuda" or cost.peak_bytes == x.nbytes


def test_the_clock_stands_still_outside() -> None:
    clock = StepClock(meter.DEVICE)
    time.sleep(0.01)
    assert clock.seconds == 0.0
    with clock.running():
        time.sleep(0.01)
    assert clock.seconds >= 0.01


def entry(**changes: Any) -> dict[str, Any]:
    numbers = {"inner_steps": None, "seconds": 0.0123, "flops": 4_000_000, "fraction": 0.25}
    return {
        "method": "dm",
        "step": "matching",
        "size": "cpu",
        "cut": "",
        **numbers,
        "peak_memory_bytes": 2**21,
    } | changes


def test_the_table_lines_up() -> None:
    long = entry(method="rat_bptt", inner_steps=4, seconds=12.3456, cut="window 4 of 60")
    head, short_row, long_row = meter.table([entry(), long])
    assert short_row.split() == ["dm", "matching", "cpu", "12.3", "0.00400", "25", "2.00"]
    assert long_row.split()[3:5] == ["12,346", "3,086"]
    assert long_row.endswith("window 4 of 60")
    end = head.index(" ms") + 3
    assert short_row[:end].endswith("12.3")
    assert long_row[:end].endswith("12,346")


@pytest.mark.parametrize("part", ["step", "matching", "network", "decode"])
def test_a_probe_takes_a_step_to_warm_up_and_one_to_time(part: str) -> None:
    """And in the first of its rounds one to be counted; the pool learns where its training is asked for."""
    seen: list[str] = []

    class Pool:
        def restart(self) -> None:
            seen.append("restart")

        def advance(self, synthetic: Any, followed: bool) -> None:
            seen.append("network")

    class Images(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = torch.nn.Parameter(torch.ones(2))

        def decode(self) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append("decode")
            return 2 * self.x, torch.zeros(2)

    clock = StepClock(meter.DEVICE)
    probe = meter.Probe(part, clock)
    taken = []
    for _ in range(2):
        seen.clear()
        images, pool = Images(), Pool()
        for _ in probe.steps(100, images, "lr", pool=pool):
            seen.append("loop")
            images.decode()
            pool.advance(images, followed=True)
        assert seen.count("restart") == (part == "network")
        steps = [what for what in seen if what != "restart"]
        kinds = {"step": ["loop", "decode", "network"], "matching": ["loop", "decode"]}.get(part, [part])
        assert steps == kinds * (len(steps) // len(kinds))
        taken.append(len(steps) // len(kinds))
    assert taken == [3, 2]
    assert clock.seconds > 0
