"""IDM's queue of networks: who joins and leaves, who trains, and how it is resumed."""

from typing import Any

import torch
from helpers.method import problem_for, small

from bench.core.training import Recipe
from methods.blocks.network_queue import NetworkQueue
from methods.blocks.parameterise.pixels import Pixels

RECIPE = Recipe(batch_size=6, lr=0.05, steps=1)


def queue(**values: Any) -> tuple[NetworkQueue, Pixels]:
    problem = problem_for()
    options = {"most": 3, "every": 2, "trained": 2, "steps": 2, **values}
    found = NetworkQueue(problem, "any", recipe=RECIPE, **options)
    return found, Pixels.start(problem, problem.rng("set"))


def weights(pool: NetworkQueue) -> list[torch.Tensor]:
    return [torch.cat([p.detach().flatten() for p in m.net.parameters()]) for m in pool._members]


def test_a_network_joins_now_and_then_and_the_oldest_leaves() -> None:
    pool, _ = queue(trained=0)
    sizes, first = [], []
    for _ in range(8):
        pool.restart()
        sizes.append(pool.size)
        first.append(weights(pool)[0])
    assert sizes == [1, 1, 2, 2, 3, 3, 3, 3]
    assert torch.equal(first[0], first[5])
    assert not torch.equal(first[5], first[6]), "a fourth one came"


def test_some_networks_train_on_real_images_after_a_matching() -> None:
    pool, pixels = queue(every=1)
    for _ in range(3):
        pool.restart()
    before = weights(pool)
    pool.advance(pixels)
    moved = [not torch.equal(a, b) for a, b in zip(before, weights(pool), strict=True)]
    assert 1 <= sum(moved) <= 2
    before = weights(pool)
    pool.advance(pixels, followed=False)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(pool), strict=True))


def test_any_network_may_be_drawn() -> None:
    pool, _ = queue(every=1, trained=0)
    drawn = set()
    for _ in range(30):
        pool.restart()
        drawn.add(pool._current)
    assert drawn == {0, 1, 2}


def test_it_goes_on_exactly_where_it_was_kept() -> None:
    pool, pixels = queue()
    for _ in range(5):
        pool.restart()
        pool.advance(pixels)
    other, _ = queue()
    other.load_state_dict(pool.state_dict())
    for one in (pool, other):
        for _ in range(4):
            one.restart()
            one.advance(pixels)
    assert all(torch.equal(a, b) for a, b in zip(weights(pool), weights(other), strict=True))


def test_the_cross_entropy_enters_by_its_weight() -> None:
    """Without it there is none in the loss: the first step differs by it alone."""
    problem = problem_for(small("idm"))
    with_it, without = (small("idm", steps=1, weight=w).distill(problem) for w in (50.0, 0.0))
    assert not torch.equal(with_it.state_dict()["images"], without.state_dict()["images"])
