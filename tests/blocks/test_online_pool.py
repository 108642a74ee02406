"""The pool of networks of different ages: draws, lives, what they learn from, and exact resumption."""

import copy
from typing import Any

import pytest
import torch
from helpers.method import problem_for, same
from torch import Tensor

from bench.core import random
from bench.core.losses import regression_values
from bench.core.method import Problem
from methods.blocks.online_pool import Online
from methods.blocks.parameterise.pixels import Pixels


def started(labels: str = "hard", **values: Any) -> tuple[Problem, Pixels, Online]:
    problem = problem_for(ipc=4, architecture="mlp-w8")
    synthetic = Pixels.start(problem, random.generator(0), labels=labels)
    return problem, synthetic, Online(problem, "pool", **{"lr": 0.01, **values})


def weights(pool: Online) -> list[Tensor]:
    return [torch.cat([p.detach().flatten() for p in net.parameters()]) for net, _ in pool._members]


@pytest.mark.parametrize(("networks", "max_age"), [(4, 8), (3, 7), (5, 2), (1, 3)])
def test_ages_are_spread_and_a_life_has_an_end(networks: int, max_age: int) -> None:
    """The last of the first lives is whole; the lives after it are, too."""
    _, synthetic, pool = started(networks=networks, max_age=max_age)
    assert pool.ages_left[-1] == max_age
    gaps = torch.tensor([0, *pool.ages_left]).diff()
    assert gaps.max() - gaps.min() <= 1
    first, lived = weights(pool), dict.fromkeys(range(networks), 0)
    lives = dict(enumerate(pool.ages_left))
    for _ in range(networks * (max_age + 2)):
        pool.restart()
        i, before, left = pool._current, weights(pool), pool.ages_left
        pool.advance(synthetic)
        changed = [not torch.equal(a, b) for a, b in zip(before, weights(pool), strict=True)]
        assert changed == [j == i for j in range(networks)]
        lived[i] += 1
        if left[i] == 0:
            assert lived[i] == lives[i] + 1
            assert pool.ages_left[i] == max_age
            assert not pool._members[i][1].state, "a fresh network has a fresh optimiser"
            lived[i], lives[i] = 0, max_age
    assert len(first) == networks


def test_every_network_is_drawn() -> None:
    _, _, pool = started(networks=5)
    drawn = []
    for _ in range(200):
        pool.restart()
        drawn.append(pool._current)
    counts = torch.tensor(drawn).bincount(minlength=5)
    assert counts.min() > 20
    assert len({tuple(w.tolist()) for w in weights(pool)}) == 5


@pytest.mark.parametrize("labels", ["hard", "image"])
@pytest.mark.parametrize("flip", [False, True])
def test_a_step_is_adam_on_the_squared_error_of_the_set(labels: str, flip: bool) -> None:
    _, synthetic, pool = started(labels, networks=1, flip=flip)
    net = copy.deepcopy(pool.net)
    pool.restart()
    pool.advance(synthetic)
    images, targets = (t.detach() for t in synthetic.decode())
    if flip:
        images, targets = torch.cat([images, images.flip(-1)]), torch.cat([targets, targets])
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    ((net(images) - regression_values(targets, 3, torch.float32)).square().sum(1) / 2).mean().backward()
    optimiser.step()
    for own, other in zip(pool.net.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)
        assert own.grad is None
    assert all(p.grad is None for p in synthetic.parameters())


def test_a_step_takes_some_of_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    _, synthetic, pool = started(networks=1, batch_size=5)
    asked: list[Tensor] = []
    decode = synthetic.decode

    def spy(items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        assert items is not None
        asked.append(items)
        return decode(items)

    monkeypatch.setattr(synthetic, "decode", spy)
    for _ in range(30):
        pool.advance(synthetic)
    assert all(len(set(items.tolist())) == 5 for items in asked)
    assert torch.cat(asked).unique().tolist() == list(range(12))


def test_it_goes_on_from_its_state() -> None:
    problem, synthetic, pool = started(networks=3, max_age=4)

    def go(pool: Online, steps: int) -> None:
        for _ in range(steps):
            pool.restart()
            pool.advance(synthetic)

    go(pool, 9)
    kept = copy.deepcopy(pool.state_dict())
    go(pool, 15)
    other = Online(problem, "pool", lr=0.01, networks=3, max_age=4)
    other.load_state_dict(kept)
    go(other, 15)
    assert other.ages_left == pool.ages_left
    one, two = ({str(i): w for i, w in enumerate(weights(p))} for p in (pool, other))
    assert same(one, two)
