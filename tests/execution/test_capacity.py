"""How many jobs fit at once, and what is said of the time of jobs that get different things."""

import time

import pytest
from helpers.plan import planned, sweep

from bench.core.errors import UserError
from bench.execution.capacity import Capacity, Limit, Node, least_seconds
from bench.execution.queue import Outcome, ReadyQueue
from bench.planning.graph import JOB_KINDS
from bench.planning.resources import Needs, Resources

H100 = frozenset({"H100"})


def capacity(*nodes: Node, **resources: object) -> Capacity:
    chosen = Resources.model_validate(resources)
    return Capacity(nodes, {kind: chosen.of(kind) for kind in JOB_KINDS})


@pytest.mark.parametrize(
    ("nodes", "needs", "slots"),
    [
        ([Node(2)], Needs(1, 0), 2),
        ([Node(3), Node(3)], Needs(2, 0), 2),  # no job has cores of two nodes
        ([Node(8, 2)], Needs(1, 1), 2),
        ([Node(8, 2)], Needs(1, 0.25), 8),
        ([Node(8, 2)], Needs(1, 0.4), 4),  # nor parts of two GPUs
        ([Node(64, 1)], Needs(1, 0.1), 10),
        ([Node(1, 8)], Needs(1, 1), 1),
        ([Node(8)], Needs(1, 1), 0),
        ([Node(8, 2, H100), Node(8, 4, frozenset({"A100"}))], Needs(1, 1, "H100"), 2),
        ([Node(8, 2)], Needs(1, 1, "H100"), 0),
    ],
)
def test_slots(nodes: list[Node], needs: Needs, slots: int) -> None:
    found = Capacity(tuple(nodes), {"distill": needs})
    assert found.slots(needs) == found.most == slots
    assert found.fits([needs] * slots)
    assert not found.fits([needs] * (slots + 1))


def test_different_jobs_beside_each_other() -> None:
    there = capacity(Node(4, 1), gpus=1, evaluate={"gpus": 0.25}, tune={"gpus": 0})
    distill, evaluate, tune = (there.kinds[kind] for kind in ("distill", "evaluate", "tune"))
    assert there.fits([tune, tune, tune, distill])
    assert not there.fits([tune, tune, tune, tune, distill])
    assert not there.fits([evaluate, distill])
    assert there.fits([evaluate, tune, evaluate, tune])
    two = capacity(Node(4, 2), gpus=1, evaluate={"gpus": 0.5})
    assert two.fits([evaluate, distill, evaluate]), "parts fill a GPU before they begin another"


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        (
            {"cpus": 3},
            "resources: a job of 3 cpus and 0 gpus does not fit: there are 2 CPUs and 1 GPUs (A100)",
        ),
        ({"distill": {"cpus": 3}}, "resources.distill: a job of 3 cpus and 0 gpus does not fit"),
        (
            {"distill": {"gpus": 1}, "accelerator": "H100"},
            "resources.distill: a job of 1 cpus and 1 H100 gpus does not fit: there are 2 CPUs and 1 GPUs",
        ),
    ],
)
def test_a_kind_that_does_not_fit_is_named_with_what_there_is(
    resources: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        capacity(Node(2, 1, frozenset({"A100"})), **resources).check()
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("node", "resources", "alone"),
    [
        (Node(1), {}, JOB_KINDS),
        (Node(2), {}, ()),
        (Node(3), {"cpus": 2}, JOB_KINDS),
        (Node(2), {"distill": {"cpus": 2}}, ("distill",)),
        (Node(3), {"distill": {"cpus": 2}}, ()),  # another kind fits beside it
        (Node(8, 1), {"distill": {"gpus": 1}}, ("distill",)),
        (Node(8, 1), {"gpus": 0.5, "distill": {"gpus": 1}}, ("distill",)),
    ],
)
def test_what_has_its_device_to_itself(
    node: Node, resources: dict[str, object], alone: tuple[str, ...]
) -> None:
    there = capacity(node, **resources)
    assert tuple(kind for kind in JOB_KINDS if there.alone(there.kinds[kind])) == alone


@pytest.mark.parametrize(
    ("work", "seconds"),
    [
        ({"distill": 100.0}, 100.0),  # one GPU
        ({"evaluate": 100.0}, 25.0),  # four share it
        ({"distill": 100.0, "evaluate": 100.0}, 125.0),
        ({"tune": 80.0}, 10.0),  # eight cores
        ({"distill": 100.0, "tune": 80.0}, 100.0),  # beside each other
        ({"distill": 100.0, "tune": 1000.0}, 137.5),  # 1100 seconds of cores
        ({}, 0.0),
    ],
)
def test_work_of_kinds_that_share_a_gpu_or_do_not(work: dict[str, float], seconds: float) -> None:
    there = capacity(Node(8, 1), distill={"gpus": 1}, evaluate={"gpus": 0.25})
    assert least_seconds(there.limits, work) == pytest.approx(seconds)
    assert str(there) == "workers: 8 for prepare, 1 for distill, 8 for tune, 4 for evaluate"


def test_jobs_that_get_the_same_have_workers_and_no_limits() -> None:
    there = capacity(Node(4, 2), gpus=0.5)
    assert (there.alike, there.limits, str(there)) == (True, [], "4 workers")
    assert str(capacity(Node(1))) == "1 worker"


def test_the_overhead_is_over_what_is_possible_at_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds with one GPU and ten with two: of 20 s of distillations 13.3 s at best."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    takes = {"distill": 1.0}
    outcome = Outcome(workers=1, limits=[Limit(takes, 1)])
    outcome.begin()
    now[0] = 10.0
    outcome.resize(2, [Limit(takes, 2)])
    now[0] = 20.0
    outcome.work["distill"], outcome.work["evaluate"] = 20.0, 500.0  # on something else
    outcome.end()
    assert outcome.least == pytest.approx(20 / 1.5)
    assert outcome.overhead == pytest.approx(0.5)


def test_the_queue_hands_out_jobs_by_what_they_get() -> None:
    jobs = planned(sweep(methods=["random_real", "herding"], seeds=[0, 1]))
    kinds = {"prepare": Needs(1, 1), "distill": Needs(1, 0), "evaluate": Needs(1, 0)}
    queue = ReadyQueue(jobs, set(), set(jobs), kinds)
    assert list(queue.ready().items()) == [(Needs(1, 0), 2), (Needs(1, 1), 2)], "a cell is finished first"
    assert queue.n_ready == 4
    first = queue.next(Needs(1, 1))
    assert first is not None
    assert first.kind == "prepare"
    chosen = queue.next()
    assert chosen is not None
    assert chosen.kind == "distill"
    queue.next(Needs(1, 0))
    assert queue.next(Needs(1, 0)) is None, "what gets something else waits for its own"
    assert queue.ready() == {Needs(1, 1): 1}
