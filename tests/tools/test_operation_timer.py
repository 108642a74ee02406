"""Operations add up, and each gets what it did: forward, backward, and backward through a backward."""

import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import grad
from torch.func import vmap

from bench.core import timing
from bench.core.augment import dsa
from bench.core.preprocess import Preprocess
from bench.core.random import generator
from bench.core.timing import OPERATIONS, Operation, charged, part
from bench.tools.profile.operation_timer import CutTraining, OperationTimer
from bench.tools.profile.prepare import projected_seconds
from methods.blocks.parameterise.pixels import Pixels

CPU = torch.device("cpu")


class Time:
    """Goes on only where something says so; nanoseconds."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def spent(ledger: OperationTimer) -> dict[str, int]:
    return {name: n for name, n in ledger.spent.items() if n}


def takes(time: Time, forward: int, backward: int) -> Any:
    """x -> 3x that takes so long, and so does its gradient, each time that it is taken."""

    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            time.now += forward
            return 3 * x

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            time.now += backward
            return 3 * grads[0]

    return lambda x: Slow.apply(x)


def chain(time: Time) -> tuple[Any, Any, Any]:
    """Decoding, augmenting, and what is matched."""
    return (
        charged("decode")(takes(time, 1, 2)),
        charged("augment")(takes(time, 10, 20)),
        charged("synthetic gradient")(takes(time, 100, 200)),
    )


def test_a_backward_pass_is_charged_to_what_it_goes_through() -> None:
    time = Time()
    ledger, (decode, augmented, matched) = OperationTimer(CPU, now=time), chain(time)
    with ledger.running():
        time.now += 4000
        loss = matched(augmented(decode(torch.ones(2, requires_grad=True)))).sum()
        time.now += 1000
        loss.backward()
        time.now += 7000
    assert spent(ledger) == {"decode": 3, "augment": 30, "synthetic gradient": 300, "other": 12_000}
    assert ledger.total == time.now


def test_a_gradient_inside_of_an_operation_ends_there() -> None:
    """As in the hypergradient: what its backward passes go through is named, the rest is its own."""
    time = Time()
    ledger, (_, augmented, _) = OperationTimer(CPU, now=time), chain(time)
    with ledger.running(), part("hypergradient"):
        source = torch.ones(2, requires_grad=True)
        for _ in range(2):
            grad(augmented(source).square().sum(), source, create_graph=True)
            time.now += 500
    assert spent(ledger) == {"augment": 60, "hypergradient": 1000}


def test_a_backward_through_a_backward() -> None:
    time = Time()
    ledger, (_, augmented, _) = OperationTimer(CPU, now=time), chain(time)
    with ledger.running(), part("hypergradient"):
        weight, source = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
        (first,) = grad((weight * augmented(source)).square().sum(), weight, create_graph=True)
        assert spent(ledger) == {"augment": 10}, "the gradient of the weights does not go through it"
        grad(first.sum(), source)
    assert spent(ledger) == {"augment": 30}


def test_a_failed_backward_leaves_the_clock_right() -> None:
    time = Time()
    ledger, (decode, *_) = OperationTimer(CPU, now=time), chain(time)

    def broken(gradient: Tensor) -> Tensor:
        time.now += 5
        raise RuntimeError("out of memory")

    x = torch.ones(2, requires_grad=True)
    x.register_hook(broken)
    with ledger.running():
        with pytest.raises(RuntimeError, match="out of memory"), part("network update"):
            decode(x).sum().backward()
        time.now += 70
        decode(torch.ones(2, requires_grad=True)).sum().backward()
        time.now += 700
    assert spent(ledger) == {"decode": 1 + 2 + 5 + 1 + 2, "other": 770}


@given(st.integers(0, 10_000))
def test_operations_add_up_to_the_whole(seed: int) -> None:
    """Whatever is nested in whatever, also where blocks break off."""
    draws, time = random.Random(seed), Time()
    own: dict[str, int] = dict.fromkeys(OPERATIONS, 0)

    def block(operation: Operation, depth: int) -> None:
        for _ in range(draws.randrange(4)):
            ran = draws.randrange(100)
            time.now += ran
            own[operation] += ran
            if depth and draws.random() < 0.5:
                inner = draws.choice(OPERATIONS)
                try:
                    with part(inner):
                        block(inner, depth - 1)
                        if draws.random() < 0.2:
                            raise KeyError
                except KeyError:
                    pass

    ledger = OperationTimer(CPU, now=time)
    for _ in range(2):  # the second time goes on
        with ledger.running():
            block("other", 4)
    assert ledger.spent == own
    assert ledger.total == time.now


def test_what_an_operation_passes_on_and_what_is_stored_carry_no_mark() -> None:
    stored = Pixels(torch.ones(2, 1, 4, 4), [1, 1], Preprocess((0.5,), (0.5,)))
    ledger = OperationTimer(CPU)
    with ledger.running():
        for _ in range(3):
            images, _ = stored.decode()
            same = dsa.apply(images, dsa.draw("none", 2, generator(0)))
            same.sum().backward()
    assert images is stored.images
    assert not stored.images._backward_hooks
    assert ledger.spent["decode"] > 0


def test_nobody_watches_outside() -> None:
    assert part("decode") is part("augment"), "one idle block for all"
    time, before = Time(), torch.ones(2, requires_grad=True)
    ledger = OperationTimer(CPU, now=time)
    decode = charged("decode")(takes(time, 1, 2))
    with ledger.running():
        made = decode(before)
    made.sum().backward()  # the mark is there still
    assert spent(ledger) == {"decode": 1}
    with ledger.running(), timing.watching(None):
        decode(before)
    assert spent(ledger) == {"decode": 1, "other": 1}


def test_under_the_transforms_of_torch_func() -> None:
    """The images are augmented inside of vmap and grad, to the same gradients."""
    drawn = dsa.draw("color+crop+cutout", 1, generator(0))
    images = torch.randn(5, 1, 1, 6, 6, generator=generator(1))

    def loss(x: Tensor) -> Tensor:
        return dsa.apply(x, drawn).square().sum()

    plain = vmap(torch.func.grad(loss))(images)
    ledger = OperationTimer(CPU)
    with ledger.running():
        watched = vmap(torch.func.grad(loss))(images)
    torch.testing.assert_close(watched, plain, rtol=0, atol=0)
    assert ledger.spent["augment"] > 0


def paced(ledger: OperationTimer, n: int, time: Time, each: int) -> list[int]:
    taken = []
    for step in timing.paced(n):
        taken.append(step)
        time.now += each
    return taken


def test_a_training_whose_time_is_up_skips_to_its_last_step() -> None:
    time = Time()
    ledger = OperationTimer(CPU, seconds=3, now=time)
    with ledger.running():
        assert paced(ledger, 10, time, 1_000_000_000) == [0, 1, 2, 3, 9]
        assert paced(ledger, 5, time, 500_000_000) == [4]
        assert paced(ledger, 1, time, 500_000_000) == [0]
    assert ledger.loops == [CutTraining(10, 5, 5.0), CutTraining(5, 1, 0.5), CutTraining(1, 1, 0.5)]
    assert paced(ledger, 3, time, 0) == [0, 1, 2], "nobody watches"


def test_a_ledger_without_a_limit_takes_all_steps() -> None:
    time = Time()
    ledger = OperationTimer(CPU, now=time)
    with ledger.running():
        assert paced(ledger, 4, time, 10**12) == [0, 1, 2, 3]


def test_what_was_left_out_costs_what_was_taken() -> None:
    """7 s, of which 5 in 2 of 10 steps and 1 in 1 of 6: 8 are missing at 2.5 s, and 5 at 1 s."""
    loops = [CutTraining(10, 2, 5.0), CutTraining(6, 1, 1.0)]
    assert projected_seconds(7.0, loops) == 7.0 + 8 * 2.5 + 5 * 1.0
    assert projected_seconds(7.0, [CutTraining(3, 3, 5.0)]) == 7.0
    assert projected_seconds(7.0, []) == 7.0
