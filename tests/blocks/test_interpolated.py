"""Networks between their initial and their trained weights."""

import dataclasses
import io
from typing import Any

import pytest
import torch
from helpers.method import problem_for
from helpers.parameterise import noise

from bench.core.method import Problem
from methods.blocks.interpolated import INITIAL, TRAINED, InitialAndTrained, Interpolated, initial_and_trained

RECIPE: dict[str, Any] = {"epochs": 2, "lr": 0.05, "batch_size": 16}


@dataclasses.dataclass(frozen=True)
class Reads:
    def requires(self) -> Any:
        return initial_and_trained(3, **RECIPE)


@pytest.fixture(scope="module", params=["convnet-d1-w4", "convnet-d1-w4-batch"])
def problem(request: pytest.FixtureRequest) -> Problem:
    reads: Any = Reads()
    return problem_for(reads, architecture=request.param)


def test_every_network_lies_between_its_ends(problem: Problem) -> None:
    """All weights at the same share of the way, which is uniform; counts of batches are the trained one's."""
    pool, shares, used = Interpolated(problem, problem.rng("pool")), [], set()
    for _ in range(60):
        pool.restart()
        number, share = pool.state_dict()["place"]
        ends = problem.prepared[f"interpolated/{number}"]
        trained, net = pool.trained.state_dict(), pool.net.state_dict()
        assert net.keys() == trained.keys()
        for name in net:
            start, end = ends[INITIAL + name], ends[TRAINED + name]
            assert torch.equal(trained[name], end)
            expected = share * start + (1 - share) * end if end.is_floating_point() else end
            torch.testing.assert_close(net[name], expected)
        shares.append(share)
        used.add(number)
    assert used == {0, 1, 2}
    assert (min(shares) < 0.1, max(shares) > 0.9) == (True, True)
    assert 0.4 < sum(shares) / len(shares) < 0.6


def test_networks_differ_by_number_and_bank_and_training_moves_them(problem: Problem) -> None:
    def built(**which: int) -> dict[str, torch.Tensor]:
        return InitialAndTrained(**RECIPE, **which).build(problem)

    name = "classifier.weight"
    first, again = built(), built()
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)
    other_seed = InitialAndTrained(**RECIPE).build(dataclasses.replace(problem, seed=5))
    assert torch.equal(other_seed[TRAINED + name], first[TRAINED + name])
    starts = [first, built(number=1), built(bank=1)]
    assert len({tuple(one[INITIAL + name].flatten().tolist()) for one in starts}) == 3
    assert not torch.equal(first[INITIAL + name], first[TRAINED + name])


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_a_pool_goes_on_where_it_was_saved(problem: Problem, stop: int) -> None:
    whole, resumed = (Interpolated(problem, problem.rng("pool")) for _ in range(2))
    resumed.restart()  # whatever it did before
    for _ in range(stop):
        whole.restart()
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for step in range(3):
        if step or not stop:
            whole.restart()
            resumed.restart()
        for one, two in ((whole.net, resumed.net), (whole.trained, resumed.trained)):
            assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_an_image_is_differentiable_and_networks_hold_no_gradient(problem: Problem) -> None:
    pool, images = Interpolated(problem, problem.rng("pool")), noise(4, *problem.image_shape).float()
    pool.restart()
    (gradient,) = torch.autograd.grad(pool.net(images.requires_grad_()).square().sum(), images)
    assert gradient.abs().sum() > 0
    assert all(p.requires_grad and p.grad is None for p in pool.net.parameters())
