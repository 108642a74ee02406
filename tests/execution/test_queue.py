"""The queue that hands out the jobs of a plan."""

import random
from pathlib import Path

from helpers.plan import QUICK, Jobs, keys, planned, sweep
from hypothesis import given
from hypothesis import strategies as st

from bench.execution.queue import ReadyQueue
from bench.planning.graph import Job

ROOT = Path(__file__).parents[2]
ALL = ["full", "random_real", "herding", "k_center", "k_means", "dm"]


# --- the queue ---------------------------------------------------------------------------------


def queue(jobs: Jobs, done: set[str] | None = None, chosen: set[str] | None = None) -> ReadyQueue:
    done = done or set()
    return ReadyQueue(jobs, done, jobs.keys() - done if chosen is None else chosen)


def in_order(work: ReadyQueue) -> list[Job]:
    """The jobs as one worker gets them."""
    order = []
    while job := work.next():
        order.append(job)
        work.finish(job.key, None)
    return order


def test_cells_are_finished_first_then_large_budgets_then_prerequisites() -> None:
    jobs = planned(sweep(methods=["herding", "random_real", "full"], ipc=[1, 4, 2]))
    work = queue(jobs)
    order = [(job.kind, job.identity.get("ipc")) for job in in_order(work)]
    assert not work.open
    assert order == [
        *(("distill", None), ("evaluate", None)),  # the whole training set
        *(pair for ipc in (4, 2, 1) for pair in (("distill", ipc), ("evaluate", None))),
        ("prepare", None),
        *(pair for ipc in (4, 2, 1) for pair in (("distill", ipc), ("evaluate", None))),
    ]


def test_a_distillation_never_waits_for_prerequisites_of_others() -> None:
    """Two of three workers hold a prerequisite; what becomes ready meanwhile goes before the third one."""
    jobs = planned(sweep(methods=["herding", "dm"], seeds=[0, 1, 2]))
    work = queue(jobs, done=keys("prepare", jobs) & {next(iter(jobs))})
    first = [work.next() for _ in range(work.n_ready - 2)]
    assert [job.kind for job in first if job] == ["distill"] * 4
    prepare = work.next()
    assert prepare is not None
    assert prepare.kind == "prepare"
    work.finish(prepare.key, None)
    job = work.next()
    assert job is not None
    assert (job.kind, list(job.inputs.values())) == ("distill", [prepare.key])
    work.finish(job.key, None)
    assert [job.kind for job in (work.next(), work.next()) if job] == ["evaluate", "prepare"]


def test_a_rate_is_chosen_before_the_next_distillation() -> None:
    grid = QUICK.model_copy(update={"rates": (0.01, 0.1)})
    jobs = planned(sweep(methods=["dm"], seeds=[0, 1]), protocol=grid)
    kinds = [job.kind for job in in_order(queue(jobs))]
    assert kinds == ["distill", "tune", "evaluate", "distill", "evaluate"]


EVERYTHING = planned(sweep(methods=ALL, ipc=[1, 2], seeds=[0, 1]))


@given(seed=st.integers(0, 999), limit=st.integers(0, 60))
def test_no_job_starts_before_its_inputs(seed: int, limit: int) -> None:
    """In whatever order jobs end, whichever are done already and however few are chosen."""
    jobs, dice = EVERYTHING, random.Random(seed)
    done: set[str] = set()
    for key, job in jobs.items():
        if all(needed in done for needed in job.inputs.values()) and dice.random() < 0.3:
            done.add(key)
    chosen = set([key for key in jobs if key not in done][:limit])
    work, running, ended = queue(jobs, done, chosen), [], set(done)
    while True:
        while (job := work.next()) and (running.append(job) or dice.random() < 0.7):
            assert set(job.inputs.values()) <= ended
        if not running:
            break
        job = running.pop(dice.randrange(len(running)))
        assert job.key not in ended
        assert work.finish(job.key, None) == []
        ended.add(job.key)
    assert ended == done | chosen
    assert not work.open
    assert not work.failed


def test_a_job_whose_input_is_not_chosen_waits() -> None:
    jobs = planned(sweep(methods=["random_real"]))
    work = queue(jobs, chosen=keys("evaluate", jobs))
    assert work.next() is None
    assert work.open == keys("evaluate", jobs)


def test_a_failure_takes_what_stands_on_it_and_nothing_else() -> None:
    jobs = planned(sweep(methods=["herding", "k_center", "random_real"], ipc=[1, 2]))
    work = queue(jobs)
    running = []
    while (prepare := work.next()) and prepare.kind != "prepare":
        running.append(prepare.key)
    assert prepare is not None
    lost = work.finish(prepare.key, "out of memory")
    stand_on_it = {
        key
        for key, job in jobs.items()
        if job.identity.get("method") in ("herding", "k_center")
        or (job.kind == "evaluate" and jobs[job.inputs["artifact"]].identity["method"] != "random_real")
    }
    assert set(lost) == stand_on_it
    assert len(lost) == len(stand_on_it)
    assert work.failed.keys() == stand_on_it | {prepare.key}
    assert work.failed[prepare.key] == "out of memory"
    for key in stand_on_it:
        (needed,) = jobs[key].inputs.values()
        assert work.failed[key] == f"not run: {jobs[needed].label} failed"
    for key in running:
        work.finish(key, None)
    rest = [*running, *(job.key for job in in_order(work))]
    assert set(rest) == jobs.keys() - stand_on_it - {prepare.key}
    assert not work.open
