"""Plans split into shards: every job in one, nothing missing in any, and as even as they can be."""

import random
from collections import Counter

import pytest
from helpers.plan import QUICK, Jobs, planned, sweep
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import UserError
from bench.planning.graph import make_job
from bench.planning.shards import Shard, parse_shard, plan_digest, split_plan

METHODS = ["full", "random_real", "herding", "k_center", "dm", "mtt", {"name": "datm", "steps": 2}]
TUNED = QUICK.model_copy(update={"rates": (0.01, 0.1)})
PLANS = {
    "experts shared by methods": planned(sweep(methods=METHODS, ipc=[1, 2], seeds=[0, 1])),
    "a rate chosen on the first seed": planned(sweep(methods=METHODS[:5], seeds=[0, 1]), protocol=TUNED),
}


def drawn_plan(seed: int) -> Jobs:
    """Jobs of all kinds, whose prerequisites share prerequisites at random."""
    dice, jobs, prepares = random.Random(seed), dict[str, object](), list[str]()

    def add(kind: str, inputs: list[str]) -> str:
        job = make_job(kind, kind, {"n": len(jobs)}, {f"role {i}": key for i, key in enumerate(inputs)})
        jobs[job.key] = job
        return job.key

    def some() -> list[str]:
        return dice.sample(prepares, dice.randint(0, min(3, len(prepares))))

    for _ in range(dice.randint(0, 6)):
        prepares.append(add("prepare", some()))
    for _ in range(dice.randint(1, 12)):
        sets = [add("distill", some()) for _ in range(dice.randint(1, 3))]
        tuned = [add("tune", [sets[0], *some()])] if dice.random() < 0.3 else []
        for key in sets:
            for _ in range(dice.randint(1, 3)):
                add("evaluate", [key, *tuned, *some()])
    return jobs  # type: ignore[return-value]


def check(jobs: Jobs, shards: list[list[str]]) -> None:
    """Together they are the plan; they share prerequisites only; each can run without the others."""
    assert {key for shard in shards for key in shard} == jobs.keys()
    times = Counter(key for shard in shards for key in shard)
    assert {jobs[key].kind for key, n in times.items() if n > 1} <= {"prepare"}
    places = list(jobs)
    for shard in shards:
        assert shard == sorted(set(shard), key=places.index)
        assert {needed for key in shard for needed in jobs[key].inputs.values()} <= set(shard)


@given(seed=st.integers(0, 10_000), number=st.integers(1, 9), known=st.floats(0, 1))
def test_shards_are_the_plan_disjoint_and_closed(seed: int, number: int, known: float) -> None:
    jobs, dice = drawn_plan(seed), random.Random(seed)
    costs = {key: dice.expovariate(1) for key in jobs if dice.random() < known}
    shards = split_plan(jobs, number, costs.get)
    check(jobs, shards)
    assert shards == split_plan(dict(jobs), number, costs.get)


@pytest.mark.parametrize("number", [1, 2, 5, 1000])
@pytest.mark.parametrize("jobs", PLANS.values(), ids=PLANS)
def test_shards_of_real_plans(jobs: Jobs, number: int) -> None:
    check(jobs, split_plan(jobs, number))


def split_prerequisites(jobs: Jobs, shards: list[list[str]]) -> set[str]:
    times = Counter(key for shard in shards for key in shard)
    return {jobs[key].label for key, n in times.items() if n > 1}


def test_what_shares_a_prerequisite_stays_together_while_it_is_no_larger_than_a_shard() -> None:
    """Two seeds of herding share no network; the ipcs of one seed do."""
    jobs = planned(sweep(methods=["herding"], ipc=[1, 2], seeds=[0, 1, 2, 3]))
    for number in (2, 4):
        assert split_prerequisites(jobs, split_plan(jobs, number)) == set()


def test_a_cheap_prerequisite_of_everything_is_made_by_every_shard() -> None:
    """A teacher that scores all sets would else keep all of them in one shard."""
    taught = [make_job("prepare", "teacher", {}, {})]
    for n in range(40):
        taught.append(make_job("distill", "d", {"n": n}, {}))
        inputs = {"artifact": taught[-1].key, "teacher": taught[0].key}
        taught.append(make_job("evaluate", "e", {"n": n}, inputs))
    jobs = {job.key: job for job in taught}
    assert [len(shard) for shard in split_plan(jobs, 4)] == [21, 21, 21, 21]


@pytest.mark.parametrize(("own", "makers"), [(1.0, 1), (1000.0, 4)])
def test_a_dear_prerequisite_is_made_again_only_where_that_is_less_than_the_rest(
    own: float, makers: int
) -> None:
    """A bank of experts of 1000 s: with 12 sets of a second one shard has them all."""
    bank = make_job("prepare", "experts", {}, {})
    sets = [make_job("distill", "mtt", {"n": n}, {"experts": bank.key}) for n in range(12)]
    others = [make_job("distill", "dm", {"n": n}, {}) for n in range(12)]
    jobs = {job.key: job for job in (bank, *sets, *others)}
    costs = {bank.key: 1000.0, **{job.key: own for job in sets}, **{job.key: 300.0 for job in others}}
    shards = split_plan(jobs, 4, costs.get)
    check(jobs, shards)
    assert sum(bank.key in shard for shard in shards) == makers


def test_known_seconds_balance_and_unknown_ones_are_the_mean_of_them() -> None:
    sets = [make_job("distill", "d", {"n": n}, {}) for n in range(6)]
    jobs = {job.key: job for job in sets}
    costs = dict(zip(jobs, (6.0, 2.0, 1.0), strict=False))  # mean 3
    loads = [sum(costs.get(key, 3.0) for key in shard) for shard in split_plan(jobs, 3, costs.get)]
    assert sorted(loads) == [6.0, 6.0, 6.0]


def test_a_digest_tells_plans_apart() -> None:
    digests = {plan_digest(jobs) for jobs in (*PLANS.values(), drawn_plan(1), drawn_plan(2))}
    assert len(digests) == 4


def test_a_plan_larger_than_its_shards_is_even() -> None:
    """All 1,000 sets stand on one prerequisite, so that there is one group of them."""
    bank = make_job("prepare", "bank", {}, {})
    jobs = {bank.key: bank}
    for n in range(1000):
        distill = make_job("distill", "d", {"n": n}, {"bank": bank.key})
        scored = [make_job("evaluate", "e", {"n": n, "i": i}, {"artifact": distill.key}) for i in range(3)]
        jobs |= {job.key: job for job in (distill, *scored)}
    sizes = [len(shard) for shard in split_plan(jobs, 64)]
    assert max(sizes) - min(sizes) <= 4


@pytest.mark.parametrize(
    "text", ["0/4", "5/4", "1/0", "1", "a/b", "-1/4", "1/4/2", "1/10001", " 1/4", "", "\u0661/4"]
)
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--shard .*: give I/N"):
        parse_shard(text)


def test_a_shard_is_read_and_written() -> None:
    assert parse_shard("2/8") == Shard(2, 8)
    assert str(Shard(2, 8)) == "2/8"
