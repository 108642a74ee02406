"""Pools: which network comes next, what it learns from, and that it can be taken up again exactly."""

import copy
import dataclasses
import io
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import MakeProblem
from test_experts import Reads, chi_square, place
from torch import Tensor, nn

from bench.core import random
from bench.core.distilled import DistilledDataset
from bench.core.method import Problem
from methods.blocks.experts import Experts
from methods.blocks.network_pools import Fresh, Pool, TrainedOnReal, TrainedOnSynthetic
from methods.blocks.parameterise.pixels import Pixels

SLOW: Any = {"lr": 0.05, "batch_size": 100}


class Poisoned(DistilledDataset):
    """A synthetic set that nobody may look at."""

    def decode(self, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        raise AssertionError("the pool looked at the synthetic set")


def pixels(problem: Problem, seed: int = 0) -> Pixels:
    images = torch.randn(20, *problem.image_shape, generator=random.generator(seed, "pixels"))
    return Pixels(images, [2] * 10, problem.preprocess)


def vector(net: nn.Module) -> Tensor:
    return torch.cat([t.detach().flatten().double() for t in net.state_dict().values()])


def numbered(problem: Problem) -> tuple[Problem, list[Tensor]]:
    """The problem with images that spell their own number, and the numbers of each batch looked at."""
    seen: list[Tensor] = []
    images = torch.zeros_like(problem.images)
    number = torch.arange(len(images))
    images[:, 0, 0, 0], images[:, 0, 0, 1] = number // 256, number % 256

    def look(batch: Tensor) -> Tensor:
        seen.append(batch[:, 0, 0, 0].long() * 256 + batch[:, 0, 0, 1])
        return batch.float() / 255

    return dataclasses.replace(problem, images=images, preprocess=look), seen  # type: ignore[arg-type]


# --- all pools ------------------------------------------------------------------------------------

Make = Callable[[Problem], Pool]
POOLS: dict[str, Make] = {
    "fresh": lambda p: Fresh(p, p.rng("pool")),
    "fresh experts": lambda p: Fresh(p, p.rng("pool"), Experts(p)),
    "real": lambda p: TrainedOnReal(
        p, "pool", steps=2, momentum=0.9, augment="color+crop", cutmix=0.5, early=1, lr=0.05, batch_size=500
    ),
    "real experts": lambda p: TrainedOnReal(p, "pool", start=Experts(p), steps=2, **SLOW),
    "synthetic": lambda p: TrainedOnSynthetic(
        p, "pool", epochs=2, momentum=0.9, weight_decay=1e-3, augment="flip", lr=0.05, batch_size=8
    ),
}
TRAINED = [name for name in POOLS if "fresh" not in name]


@pytest.fixture(scope="module")
def problem(make_problem: MakeProblem) -> Problem:
    return make_problem(Reads(experts=3, epochs=2), architecture="mlp")


@pytest.mark.parametrize("name", POOLS)
def test_another_network_at_each_restart(name: str, problem: Problem) -> None:
    pool, found = POOLS[name](problem), []
    for _ in range(4):
        pool.restart()
        found.append(vector(pool.net))
    experts = "experts" in name  # of which there are few: a checkpoint may come again
    assert len({tuple(v[:50].tolist()) for v in found}) >= (2 if experts else 4)
    again = POOLS[name](problem)
    again.restart()
    assert torch.equal(vector(again.net), found[0])
    other = POOLS[name](dataclasses.replace(problem, seed=1))
    other.restart()
    assert experts or not torch.equal(vector(other.net), found[0])


@pytest.mark.parametrize("name", POOLS)
def test_a_network_may_be_differentiated_and_holds_no_gradient(name: str, problem: Problem) -> None:
    pool, synthetic = POOLS[name](problem), pixels(problem)
    pool.restart()
    before = vector(pool.net)
    pool.advance(synthetic)
    assert torch.equal(vector(pool.net), before) == (name not in TRAINED)
    assert all(p.requires_grad and p.grad is None for p in pool.net.parameters())
    assert synthetic.images.grad is None
    assert torch.equal(synthetic.images, pixels(problem).images)
    loss = F.cross_entropy(pool.net(synthetic.images), synthetic.labels)
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, list(pool.net.parameters())))


@pytest.mark.parametrize("name", POOLS)
def test_pools_leave_the_global_generator_alone(name: str, problem: Problem) -> None:
    torch.manual_seed(987_654_321)
    before = torch.get_rng_state()
    pool = POOLS[name](problem)
    pool.restart()
    pool.advance(pixels(problem))
    assert torch.equal(torch.get_rng_state(), before)


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


BATCH = "convnet-d1-w4-batch"  # its running statistics are a part of the state
NETS = [*((name, "mlp") for name in POOLS), *((name, BATCH) for name in POOLS if "experts" not in name)]


@pytest.mark.parametrize(("name", "architecture"), NETS)
@pytest.mark.parametrize("stop", [0, 1, 2, 5])
def test_resuming_is_exact(
    name: str, architecture: str, stop: int, problem: Problem, make_problem: MakeProblem
) -> None:
    """Wherever the state is taken, also before the first network: another pool goes on from it."""
    if architecture == BATCH:
        problem = make_problem(architecture=architecture)
    synthetic = pixels(problem)
    steps: list[Callable[[Pool], None]] = [
        lambda pool: pool.restart(),
        lambda pool: pool.advance(synthetic),
        lambda pool: pool.advance(synthetic),
        lambda pool: pool.restart(),
        lambda pool: pool.advance(synthetic),
    ]
    whole, resumed, found = POOLS[name](problem), POOLS[name](problem), []
    for i, step in enumerate(steps):
        if i == stop:
            state = through_a_file(whole.state_dict())
        step(whole)
        found.append(vector(whole.net))
    if stop == len(steps):
        state = through_a_file(whole.state_dict())
    resumed.restart()  # whatever it did before
    resumed.load_state_dict(state)
    for step, expected in zip(steps[stop:], found[stop:], strict=True):
        step(resumed)
        assert torch.equal(vector(resumed.net), expected)
    for pool in (whole, resumed):
        pool.advance(synthetic)
    assert torch.equal(vector(whole.net), vector(resumed.net))


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_saved_stays_as_it_was_once_copied(name: str, problem: Problem) -> None:
    pool = POOLS[name](problem)
    pool.load_state_dict(empty := copy.deepcopy(pool.state_dict()))  # the loop's way back to the start
    pool.restart()
    first = vector(pool.net)
    pool.load_state_dict(empty)
    pool.restart()
    assert torch.equal(vector(pool.net), first)


# --- trained on the real set ----------------------------------------------------------------------


def test_the_synthetic_set_never_reaches_a_network_trained_on_real(problem: Problem) -> None:
    pool = POOLS["real"](problem)
    pool.restart()
    for _ in range(3):
        pool.advance(Poisoned(problem.preprocess))
    assert vector(pool.net).isfinite().all()
    beside = POOLS["real"](problem)
    beside.restart()
    for _ in range(3):
        beside.advance(pixels(problem))
    assert torch.equal(vector(pool.net), vector(beside.net))


def test_a_last_image_joins_the_batch_before_it(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """1437 images in batches of 718 are 718 and 719; twenty in batches of 19 are twenty."""
    spied, seen = numbered(problem)
    pool = TrainedOnReal(spied, "pool", epochs=1, early=1, lr=0.05, batch_size=718)
    pool.restart()
    pool.advance(Poisoned(problem.preprocess))
    assert [len(batch) for batch in seen] == [718, 719] * 2
    synthetic = TrainedOnSynthetic(problem, "pool", epochs=2, lr=0.05, batch_size=19)
    synthetic.restart()
    step, sizes = synthetic.student.step, []

    def counted(x: Tensor, y: Tensor) -> None:
        sizes.append(len(x))
        step(x, y)

    monkeypatch.setattr(synthetic.student, "step", counted)
    synthetic.advance(pixels(problem))
    assert sizes == [20, 20]


@pytest.mark.parametrize("steps", [1, 3])
def test_images_are_taken_without_replacement_across_networks(steps: int, problem: Problem) -> None:
    spied, seen = numbered(problem)
    n, size = len(spied.images), SLOW["batch_size"]
    per_epoch = -(-n // size)
    pool = TrainedOnReal(spied, "pool", steps=steps, **SLOW)
    while len(seen) < 3 * per_epoch:
        if len(seen) % 4 == 0:
            pool.restart()
        done = len(seen)
        pool.advance(Poisoned(problem.preprocess))
        assert len(seen) == done + steps  # exactly; the last of an epoch is short
        assert all(len(batch) in (size, n % size) for batch in seen[done:])
    for epoch in range(3):
        numbers = torch.cat(seen[epoch * per_epoch : (epoch + 1) * per_epoch])
        assert torch.equal(numbers.sort().values, torch.arange(n))
    assert not torch.equal(seen[0], seen[per_epoch])


def test_early_epochs_come_before_the_first_matching(problem: Problem) -> None:
    spied, seen = numbered(problem)
    pool = TrainedOnReal(spied, "pool", steps=1, early=2, **SLOW)
    for restart in (1, 2):
        pool.restart()
        counts = torch.cat(seen).bincount(minlength=len(spied.images))
        assert torch.all(counts == 2 * restart)


def test_a_network_starts_with_a_fresh_optimiser(problem: Problem) -> None:
    pool = TrainedOnReal(problem, "pool", steps=2, momentum=0.9, **SLOW)
    pool.restart()
    pool.advance(Poisoned(problem.preprocess))
    assert len(pool.student.optimiser.state) == len(list(pool.net.parameters()))
    pool.restart()
    assert not pool.student.optimiser.state


def test_starts_are_uniform_over_the_pre_trained_networks(problem: Problem) -> None:
    pool, counts = TrainedOnReal(problem, "pool", steps=1, start=Experts(problem, first=1), **SLOW), Counter()
    for _ in range(300):
        pool.restart()
        counts[place(problem, torch.cat([p.detach().flatten() for p in pool.net.parameters()]))] += 1
    assert {epoch for _, epoch in counts} == {1, 2}
    assert chi_square(counts, 3 * 2) < 5


def test_a_network_trained_on_real_learns(problem: Problem) -> None:
    pool = TrainedOnReal(problem, "pool", epochs=3, lr=0.1, momentum=0.9, batch_size=100)
    pool.restart()
    x, losses = problem.preprocess(problem.images), []
    for _ in range(2):
        losses.append(F.cross_entropy(pool.net(x), problem.labels).item())
        pool.advance(Poisoned(problem.preprocess))
    losses.append(F.cross_entropy(pool.net(x), problem.labels).item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 4


# --- trained on the synthetic set -----------------------------------------------------------------


def test_training_on_the_synthetic_set_by_hand(problem: Problem) -> None:
    """DC's theta <- opt-alg(L^S(theta)) with one optimiser for the stretch; real images are not looked at."""
    spied = dataclasses.replace(problem, images=problem.images * 0, preprocess=None)  # type: ignore[arg-type]
    pool = TrainedOnSynthetic(spied, "pool", epochs=1, lr=0.1, momentum=0.9, batch_size=8)
    pool.restart()
    net, synthetic = copy.deepcopy(pool.net), pixels(problem)
    optimiser, order = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), spied.rng("pool", "order")
    for seed in range(3):
        synthetic.images.data.copy_(pixels(problem, seed).images)  # the outer loop moves it
        pool.advance(synthetic)
        for index in torch.randperm(20, generator=order).split(8):
            optimiser.zero_grad()
            F.cross_entropy(net(synthetic.images.detach()[index]), synthetic.labels[index]).backward()
            optimiser.step()
        assert torch.equal(vector(pool.net), vector(net))


class Soft(Pixels):
    """Pixels with even targets."""

    def decode(self, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        images, labels = super().decode(items)
        return images, torch.full((len(labels), 10), 0.1, requires_grad=True)


def test_soft_targets_are_learned(problem: Problem) -> None:
    images = pixels(problem).images.detach()
    synthetic = Soft(images, [2] * 10, problem.preprocess)
    pool = TrainedOnSynthetic(problem, "pool", steps=60, lr=0.2, batch_size=20)
    pool.restart()
    gaps = []
    for _ in range(2):
        gaps.append((pool.net(images).softmax(1) - 0.1).abs().max().item())
        pool.advance(synthetic)
    gaps.append((pool.net(images).softmax(1) - 0.1).abs().max().item())
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < gaps[0] / 3
