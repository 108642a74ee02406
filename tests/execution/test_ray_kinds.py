"""Sweeps on Ray whose kinds of jobs get different resources."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from helpers.cli import leftovers, program, run_inline, stable_records, sweep_file
from helpers.plan import planned, sweep

from bench.execution.capacity import Capacity, Node
from bench.execution.head import HeadWatch
from bench.execution.progress import Progress
from bench.execution.queue import Outcome, ReadyQueue
from bench.planning.resources import Needs

pytestmark = pytest.mark.ray
TWO, ONE = Needs(2, 0), Needs(1, 0)
KINDS = {"prepare": ONE, "distill": TWO, "evaluate": ONE}


@pytest.fixture
def searcher(tmp_path: Path) -> Any:
    from bench.execution.ray_tune import JobSearcher  # a second

    jobs = planned(sweep(methods=["random_real"], seeds=[0, 1, 2], students_on=["mlp", "convnet-d2-w8"]))
    queue = ReadyQueue(jobs, set(), set(jobs), KINDS)
    told = SimpleNamespace(finished=lambda key, ok, seconds: None, say=lambda text: None)
    head = cast(HeadWatch, SimpleNamespace(check=lambda: None))
    there = Capacity((Node(2),), KINDS)
    return JobSearcher(queue, cast(Progress, told), Outcome(), tmp_path, head, there)


def test_trials_are_made_for_what_fits_beside_what_runs(searcher: Any) -> None:
    """On two cores: a distillation that takes both, then its evaluations, which take one each, then the next.

    Were trials for the other distillations waiting, Tune would give them the process that ends the first one.
    """
    done = {"ok": True, "error": None, "seconds": 1.0}
    assert searcher.suggest("a") == {"trial": "a", "needs": {"CPU": 2}}
    assert searcher.suggest("b") is None
    assert searcher.job("a").kind == "distill"
    assert searcher.suggest("b") is None
    searcher.on_trial_complete("a", done)
    assert [searcher.suggest(name) for name in "bcd"] == [
        {"trial": "b", "needs": {"CPU": 1}},
        {"trial": "c", "needs": {"CPU": 1}},
        None,
    ]
    assert [searcher.job(name).kind for name in "bc"] == ["evaluate", "evaluate"]
    searcher.on_trial_complete("b", done)
    assert searcher.suggest("d") is None, "a core is free, and a distillation takes two"
    searcher.on_trial_complete("c", done)
    assert searcher.suggest("d") == {"trial": "d", "needs": {"CPU": 2}}


def test_a_job_that_no_longer_fits_waits_for_a_node(searcher: Any) -> None:
    searcher.capacity = Capacity((Node(1),), KINDS)
    assert searcher.suggest("a") == {"trial": "a", "needs": {"CPU": 2}}
    assert searcher.suggest("b") is None


def test_what_a_trial_asks_ray_for() -> None:
    from bench.execution.ray_cluster import bundle

    assert bundle(Needs(2, 0)) == {"CPU": 2}
    assert bundle(Needs(1, 0.25)) == {"CPU": 1, "GPU": 0.25}
    assert bundle(Needs(1, 1, "H100")) == {"CPU": 1, "GPU": 1, "accelerator_type:H100": 0.001}


@pytest.mark.timeout(300)
def test_a_sweep_with_kinds_ends_as_inline_and_says_what_fits(tmp_path: Path) -> None:
    out = tmp_path / "out"
    distill = {"architectures": ["convnet-d1-w4"], "seeds": [0]}
    changes: dict[str, Any] = {"methods": ["random_real"], "ipc": [1], "distill": distill}
    sweep = sweep_file(tmp_path, **changes, resources={"distill": {"cpus": 2}})
    run = program("run", sweep, "--out", out)
    assert (run.code, run.err) == (0, "")
    assert "workers: 1 for distill, 2 for evaluate, started in" in run.out
    assert re.search(r"on workers that kinds of jobs share [\d.]+ each: overhead [\d.]+%", run.text)
    assert leftovers(out) == []
    alone = run_inline(sweep_file(tmp_path / "alone", **changes), tmp_path / "inline")
    assert alone.code == 0
    assert stable_records(out) == stable_records(tmp_path / "inline")


def test_a_node_that_joins_or_leaves_is_counted_for_each_kind(searcher: Any) -> None:
    from bench.execution.ray_tune import JobCallback, OldestFirstScheduler

    said: list[str] = []
    searcher.progress = SimpleNamespace(say=said.append, workers=2, limits=[])
    nodes = [(Node(2),)]
    callback = JobCallback(searcher, OldestFirstScheduler(2, alike=False), lambda: nodes[-1])
    for now in ((Node(2),), (Node(2), Node(3)), (Node(2),), ()):
        nodes.append(now)
        callback.looked = 0.0
        callback.on_step_begin(0, [])
    before, after = (
        f"workers: {n} for prepare, {m} for distill, {n} for evaluate" for n, m in ((2, 1), (5, 2))
    )
    assert said[:2] == [
        f"{after} instead of {before}: a node has joined",
        f"{before} instead of {after}: a node has left",
    ]
    assert said[2].endswith("a node has left")
    assert searcher.outcome.workers == searcher.progress.workers == 1, "jobs wait for a node"
