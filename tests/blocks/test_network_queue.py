"""The queue of networks: who joins and leaves, who trains on what, and exact resumption."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.method import problem_for, same
from torch import Tensor

from bench.core import random
from bench.core.batches import BatchOrder
from bench.core.method import Problem
from bench.core.networks.base import Network
from methods.blocks.network_queue import FIRST, Queue
from methods.blocks.parameterise.pixels import Pixels

SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}


def started(architecture: str = "mlp-w8", **values: Any) -> tuple[Problem, Pixels, Queue]:
    problem = problem_for(ipc=4, architecture=architecture)
    synthetic = Pixels.start(problem, random.generator(0))
    return problem, synthetic, Queue(problem, "queue", **{"batch_size": 8, "steps": 2, **SGD, **values})


def nets(queue: Queue) -> list[Network]:
    return [net for net, _ in queue._members]


def weights(queue: Queue) -> list[Tensor]:
    return [torch.cat([p.detach().flatten() for p in net.parameters()]) for net in nets(queue)]


@pytest.mark.parametrize(("most", "every"), [(5, 2), (100, 3), (3, 1), (1, 4), (2, 1)])
def test_a_network_joins_in_its_turn_and_the_oldest_leaves(most: int, every: int) -> None:
    _, _, queue = started(networks=most, every=every)
    line = nets(queue)
    assert len(line) == min(FIRST, most)
    for matching in range(12):
        queue.restart()
        if matching % every == 0:
            line = [*line, nets(queue)[-1]][-most:]
            assert nets(queue)[-1] not in line[:-1]
            assert not queue._members[-1][1].state, "a fresh network has a fresh optimiser"
        assert [id(net) for net in nets(queue)] == [id(net) for net in line]
        assert queue.net in line


def test_every_network_is_drawn() -> None:
    _, _, queue = started(networks=5, every=1)
    for _ in range(4):
        queue.restart()
    first, drawn = nets(queue), []
    queue._every = 10**9
    for _ in range(200):
        queue.restart()
        drawn.append(first.index(queue.net))
    assert torch.tensor(drawn).bincount(minlength=5).min() > 20


@pytest.mark.parametrize(("trained", "moves"), [(1, 1), (2, 2), (99, 4)])
def test_so_many_different_networks_train(trained: int, moves: int) -> None:
    _, synthetic, queue = started(trained=trained)
    queue.restart()
    for _ in range(5):
        before = weights(queue)
        queue.advance(synthetic)
        moved = [not torch.equal(a, b) for a, b in zip(before, weights(queue), strict=True)]
        assert sum(moved) == moves


def test_training_is_sgd_on_shuffled_real_images_and_says_how_many_were_right() -> None:
    problem, synthetic, queue = started(networks=1, steps=7)
    queue.restart()
    assert queue.accuracy == 0
    net = copy.deepcopy(queue.net).train()
    optimiser = torch.optim.SGD(net.parameters(), **SGD)
    order = BatchOrder(len(problem.images), 8, problem.rng("queue", "order"), problem.device)
    for _ in range(2):  # momentum and the order go on
        queue.advance(synthetic)
        right = seen = 0
        for _, index in zip(range(7), order, strict=False):
            logits = net(problem.preprocess(problem.images[index]))
            right, seen = right + int((logits.argmax(1) == problem.labels[index]).sum()), seen + len(index)
            optimiser.zero_grad()
            F.cross_entropy(logits, problem.labels[index]).backward()
            optimiser.step()
        for own, other in zip(queue.net.parameters(), net.parameters(), strict=True):
            assert torch.equal(own, other)
            assert own.grad is None
        assert float(queue.accuracy) == pytest.approx(right / seen)


def test_the_accuracy_belongs_to_the_network() -> None:
    _, synthetic, queue = started(trained=1, networks=4, every=1, steps=5)
    for _ in range(8):
        queue.restart()
        before = {id(net): float(a) for net, a in zip(nets(queue), queue._accuracies, strict=True)}
        assert before[id(queue.net)] == float(queue.accuracy)
        kept = weights(queue)
        queue.advance(synthetic)
        for net, a, old, new in zip(nets(queue), queue._accuracies, kept, weights(queue), strict=True):
            assert float(a) == before[id(net)] or not torch.equal(old, new)
        assert sum(float(a) > 0 for a in queue._accuracies) >= 1


def test_batch_norm_is_matched_by_its_running_statistics() -> None:
    _, synthetic, queue = started("convnet-d1-w4-batch", networks=1)
    queue.restart()
    queue.advance(synthetic)
    queue.restart()
    kept = copy.deepcopy(queue.net.state_dict())
    images = synthetic.decode()[0]
    whole, parts = queue.net.embed(images), torch.cat([queue.net.embed(one) for one in images.split(2)])
    torch.testing.assert_close(whole, parts)
    assert same(kept, queue.net.state_dict())


def test_it_goes_on_from_its_state() -> None:
    values = {"networks": 5, "every": 2}

    def go(queue: Queue, steps: int) -> list[Tensor]:
        for _ in range(steps):
            queue.restart()
            queue.advance(synthetic)
        return [*weights(queue), *queue._accuracies, queue.accuracy]

    problem, synthetic, queue = started(**values)
    go(queue, 3)
    kept = copy.deepcopy(queue.state_dict())
    expected = go(queue, 6)
    other = Queue(problem, "queue", batch_size=8, steps=2, **SGD, **values)
    other.load_state_dict(kept)
    found = go(other, 6)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
