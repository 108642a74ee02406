"""Operations are counted from shapes: the formula of a ConvNet, and a few steps that stand for all."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.core import random, timing
from bench.core.batches import BatchOrder, batch_share
from bench.core.distilled import DistilledDataset
from bench.core.loop import Loop
from bench.core.networks.architecture import parse_architecture
from bench.core.networks.base import Network
from bench.core.operations import MOST, JobOperations, OperationCounter
from bench.core.training import Recipe, in_pieces, train

A = torch.ones(3, 5)
B = torch.ones(5, 7)
PRODUCT = 2 * 3 * 5 * 7  # of A and B


def multiply(times: int = 1) -> None:
    for _ in range(times):
        A @ B


def convnet(width: int, side: int, classes: int) -> Network:
    return parse_architecture(f"convnet-d3-w{width}").build(
        (3, side, side), classes, random.generator(0, "net")
    )


def forward(images: int, width: int, side: int, classes: int) -> int:
    """Two operations a multiply-add: of three 3x3 convolutions, each halving the side, and the classifier."""
    inputs = (3, width, width)
    macs = sum(9 * c * width * (side >> depth) ** 2 for depth, c in enumerate(inputs))
    return 2 * images * (macs + width * (side >> 3) ** 2 * classes)


@pytest.mark.parametrize(("width", "side", "images"), [(8, 16, 4), (16, 32, 3)])
def test_a_convnet_costs_what_its_shapes_say(width: int, side: int, images: int) -> None:
    net, x = convnet(width, side, 10), torch.ones(images, 3, side, side)
    one = forward(images, width, side, 10)
    first = 2 * images * 27 * width * side**2  # of the first layer, which passes nothing on to the images
    with OperationCounter() as ahead:
        loss = F.cross_entropy(net(x), torch.zeros(images, dtype=torch.int64))
    with OperationCounter() as back:
        loss.backward()
    assert (ahead.flops, back.flops) == (one, 2 * one - first)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_networks_that_only_look_cost_a_forward_pass(mode: Any) -> None:
    net, x = convnet(8, 16, 10), torch.ones(4, 3, 16, 16)
    with OperationCounter() as counter, mode():
        net(x)
    assert counter.flops == forward(4, 8, 16, 10)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(("n", "size", "epochs"), [(40, 8, 2), (45, 8, 3), (41, 8, 2), (5, 8, 2)])
def test_the_first_step_of_a_training_stands_for_all(n: int, size: int, epochs: int, cut: bool) -> None:
    """Also where the last batch of an epoch is smaller, or larger by one."""
    images, labels = torch.rand(n, 3, 16, 16), torch.arange(n) % 10
    recipe = Recipe(batch_size=size, lr=0.01, epochs=epochs)

    def run(net: Network) -> None:
        train(net, images, labels, recipe, random.generator(0, "draws"))

    with OperationCounter() as whole:
        run(convnet(4, 16, 10))
    counted = JobOperations(cut=cut)
    with counted.running():
        run(convnet(4, 16, 10))
    assert counted.sum == pytest.approx(whole.flops, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 3, 5, 6, 13])
def test_shares_of_batches_are_those_of_the_order(steps: int) -> None:
    order = BatchOrder(45, 10, random.generator(0, "order"), torch.device("cpu"))
    sizes = [len(next(order)) for _ in range(steps)]
    assert batch_share(45, 10, steps) == pytest.approx(sum(sizes) / steps / sizes[0])


@pytest.mark.parametrize("n", [1, 50, 120])
def test_pieces_count_whole(n: int) -> None:
    counted = JobOperations()
    with counted.running():
        in_pieces(lambda x: x @ B, torch.ones(n, 5))
    assert counted.sum == 2 * n * 5 * 7


def loop(
    counted: JobOperations, costs: list[int], folder: Path | None = None, stop: int | None = None
) -> int:
    """Run a loop whose steps multiply so often; steps that were run."""
    generator, run = torch.Generator(), 0
    images = Empty(torch.zeros(1))
    at = Loop(folder, every_s=0, operations=counted)
    with counted.running():
        multiply(3)
        for step in at.steps(len(costs), images, "lr", generator=generator):
            if step == stop:
                raise KeyboardInterrupt
            multiply(costs[step])
            run += 1
        multiply(4)
    return run


class Empty(DistilledDataset):
    """A set that holds one number."""

    def __init__(self, number: Tensor) -> None:
        self.number = number

    def state_dict(self) -> dict[str, Tensor]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.number = state["number"]

    def save(self, path: Path) -> None:
        path.touch()


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(
    ("costs", "period", "stride", "counted"),
    [
        ([], 0, 0, 0),
        ([2], 0, 0, 1),
        ([2] * 100, 0, 0, 2),
        ([1, 2] * 200, 0, 0, MOST),
        ([5, 2, 2] * 20, 3, 1, 3),  # each network is trained before its first step
        ([5, *[2] * 18, 1] * 4, 20, 1, 3),  # and takes no step after its last one
        ([9, *[2, 2, 6] * 6, 1] * 4, 20, 3, 5),  # something more every third step
        ([5, 2] * 20, 2, 1, 2),
        ([3] * 20, 1, 1, 1),
        ([7, 2], 20, 20, 2),  # all there is
        ([7, 2, 2, 2] * 3, 4, 4, 4),
    ],
)
def test_some_steps_of_a_distillation_stand_for_all(
    costs: list[int], period: int, stride: int, counted: int, cut: bool
) -> None:
    found = JobOperations(period, stride, cut)
    assert loop(found, costs) == (counted if cut else len(costs))
    assert len(found.steps) == counted
    assert found.fixed == 7 * PRODUCT
    assert found.sum == pytest.approx((7 + sum(costs)) * PRODUCT)


def test_a_short_job_is_not_slowed_by_counting_much_of_it() -> None:
    assert loop(found := JobOperations(), [1, 2] * 40) == 80
    assert len(found.steps) == 80 // 20
    assert found.sum == pytest.approx((7 + 120) * PRODUCT)


def test_a_killed_job_counts_as_one_that_was_not(tmp_path: Path) -> None:
    costs, folder = [5, 2, 2] * 4, tmp_path / "loop"
    folder.mkdir()
    for stop in (1, 7):
        with pytest.raises(KeyboardInterrupt):
            loop(JobOperations(3), costs, folder, stop)
    again = JobOperations(3)
    loop(again, costs, folder)
    assert again.sum == (7 + sum(costs)) * PRODUCT


def test_nothing_is_counted_after_a_failure() -> None:
    counted = JobOperations()
    with pytest.raises(KeyboardInterrupt):
        loop(counted, [2] * 10, stop=1)
    before = counted.sum
    multiply()
    assert counted.sum == before
    assert list(timing.paced(3)) == [0, 1, 2]


def test_a_training_that_fails_while_it_is_counted_leaves_nothing_on() -> None:
    counted, steps = JobOperations(), iter(())

    def fail() -> None:
        nonlocal steps
        with counted.running():
            steps = iter(timing.paced(5))
            next(steps), next(steps)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    del steps
    with OperationCounter() as other:
        multiply()
    assert other.flops == PRODUCT
    assert math.isfinite(counted.sum)
