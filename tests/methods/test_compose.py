"""Any parameterisation with any objective, at equal storage."""

import dataclasses
import itertools
from typing import Any, get_args, get_type_hints

import pytest
import torch
from helpers.method import losses, problem_for, segments_read, small, state

from bench.core.errors import UserError
from bench.core.method import Problem
from bench.planning.sweep import build_method
from methods.blocks.interpolated import Interpolated
from methods.blocks.network_pools import Fresh, TrainedOnReal, TrainedOnSynthetic
from methods.blocks.network_queue import Queue
from methods.blocks.online_pool import Online
from methods.compose import OF_FEATURES, OWN_POOL, Compose


def choices(field: str) -> tuple[str, ...]:
    return get_args(get_type_hints(Compose)[field])


PARAMETERISATIONS, OBJECTIVES = choices("parameterisation"), choices("objective")
POOLS = tuple(pool for pool in choices("pool") if pool != "own")
TAUGHT = "batch_norm_statistics"
NETWORK_POOLS = [
    (o, pool)
    for o in OBJECTIVES
    for pool in POOLS
    if o not in ("trajectory_matching", TAUGHT) and pool != "teacher"
]
LIGHT = {"steps": 2, "net_steps": 1, "stretch": 2, "batch_real": 8, "batch_synthetic": 8}


def composed(**values: Any) -> Compose:
    return small("compose", **LIGHT | values)


@pytest.fixture(scope="module")
def with_experts() -> Problem:
    """A problem for every pair: also of those that need experts."""
    one, *others = (
        problem_for(composed(objective=o), ipc=10, members=20)
        for o in ("trajectory_matching", TAUGHT, "characteristic_function")
    )
    prepared = {role: t for problem in (one, *others) for role, t in problem.prepared.items()}
    return dataclasses.replace(one, prepared=prepared)


@pytest.mark.parametrize(
    ("parameterisation", "objective"), list(itertools.product(PARAMETERISATIONS, OBJECTIVES))
)
def test_every_pair_gives_a_balanced_set_within_the_budget(
    parameterisation: str, objective: str, with_experts: Problem
) -> None:
    pair = {"parameterisation": parameterisation, "objective": objective}
    distilled, noted = losses(composed(**pair), with_experts)
    images, targets = distilled.decode()
    assert distilled.n_stored <= with_experts.budget
    assert distilled.n_stored > 0.8 * with_experts.budget
    assert targets.bincount().tolist() == [len(images) // 3] * 3
    assert images.shape[1:] == with_experts.image_shape
    assert images.isfinite().all()
    assert len(noted) == 2
    begin = state(
        composed(parameterisation=parameterisation, objective=objective, lr=1e-30).distill(with_experts)
    )
    assert not any(torch.equal(tensor, begin[name]) for name, tensor in distilled.named_parameters())


@pytest.mark.parametrize("labels", ["class", "image"])
@pytest.mark.parametrize("objective", [o for o in OBJECTIVES if o not in OF_FEATURES])
def test_labels_are_learned_within_the_budget(objective: str, labels: str, with_experts: Problem) -> None:
    values = {"objective": objective, "labels": labels, "parameterisation": "multi_formation"}
    distilled = composed(**values).distill(with_experts)
    begin = composed(**values, lr=1e-30).distill(with_experts)
    assert distilled.n_stored <= with_experts.budget
    assert not torch.equal(distilled.label_logits, begin.label_logits)


@pytest.mark.parametrize("labels", ["class", "image"])
@pytest.mark.parametrize("objective", OF_FEATURES)
def test_labels_that_an_objective_would_never_learn_are_refused(objective: str, labels: str) -> None:
    with pytest.raises(UserError, match=rf"labels: {objective} never looks at them"):
        composed(objective=objective, labels=labels)


def test_attention_needs_maps() -> None:
    with pytest.raises(UserError, match="take convnet"):
        composed(objective="attention").check(problem_for(architecture="mlp"))


@pytest.mark.parametrize(("objective", "pool"), NETWORK_POOLS)
def test_an_objective_takes_the_networks_of_any_pool(
    objective: str, pool: str, with_experts: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trained pool keeps a network for a stretch; the others give a new one each step, or draw one."""
    restarts, advances = [], []
    for cls in (Fresh, TrainedOnReal, TrainedOnSynthetic, Online, Interpolated, Queue):

        def restart(self: Any, restart: Any = cls.restart) -> None:
            restarts.append(type(self))
            restart(self)

        def advance(self: Any, synthetic: Any, followed: bool, advance: Any = cls.advance) -> None:
            advances.append((type(self), followed))
            advance(self, synthetic, followed)

        monkeypatch.setattr(cls, "restart", restart)
        monkeypatch.setattr(cls, "advance", advance)
    composed(objective=objective, pool=pool, steps=4).distill(with_experts)
    trained = {"trained_on_real": TrainedOnReal, "trained_on_synthetic": TrainedOnSynthetic}
    cls = {**trained, "online": Online, "interpolated": Interpolated, "queue": Queue}.get(pool, Fresh)
    assert restarts == [cls] * (2 if pool in trained else 4)
    assert advances == [(cls, followed) for followed in 2 * (pool in trained, False)]


def test_the_pool_of_an_objective_is_that_of_its_paper() -> None:
    assert OWN_POOL.keys() == set(OBJECTIVES)
    for objective, pool in OWN_POOL.items():
        own, named = composed(objective=objective), composed(objective=objective, pool=pool)
        assert own.requires() == named.requires()
        assert bool(own.requires()) == (pool in ("experts", "teacher", "interpolated"))


def test_an_unroll_may_start_from_experts(with_experts: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    read = segments_read(monkeypatch)
    composed(objective="unrolled", pool="experts", steps=8).distill(with_experts)
    assert len(read) == 8
    assert len(set(read)) > 1


@pytest.mark.parametrize(
    ("objective", "pool"),
    [
        *((TAUGHT, pool) for pool in POOLS if pool != "teacher"),
        *((o, "teacher") for o in OBJECTIVES if o not in (TAUGHT, "trajectory_matching")),
    ],
)
def test_a_teacher_is_of_its_objective_alone(objective: str, pool: str) -> None:
    with pytest.raises(UserError, match=r"^pool: batch_norm_statistics needs the teacher's.*leave pool out$"):
        Compose(objective=objective, pool=pool)


def test_a_teacher_without_batch_norm_is_refused(with_experts: Problem) -> None:
    with pytest.raises(UserError, match=r"^teacher: mlp has no batch norm: take one with"):
        composed(objective=TAUGHT, teacher="mlp").check(with_experts)


@pytest.mark.parametrize("pool", [pool for pool in POOLS if pool != "experts"])
def test_trajectories_follow_experts_only(pool: str) -> None:
    with pytest.raises(UserError, match=rf"^pool: trajectory_matching follows experts; {pool} has none"):
        Compose(objective="trajectory_matching", pool=pool)
    with pytest.raises(UserError, match=r"leave pool out$"):
        build_method("compose", {"objective": "trajectory_matching", "pool": pool})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"parameterisation": "hallucinators", "hallucinators": 20}, "hallucinators"),
        ({"parameterisation": "linear_bases", "bases": 500}, "bases"),
        ({"parameterisation": "multi_formation", "factor": 9}, "factor 9"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        composed(**values).distill(problem_for(ipc=1))
