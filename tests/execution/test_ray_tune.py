"""Sweeps on Ray: what they share with the inline executor, and what they survive."""

import os
import pickle
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
from helpers.cli import (
    SLOW_DM,
    Ended,
    ddbench,
    ended,
    leftovers,
    program,
    run_inline,
    stable_records,
    started,
    steps_seen,
    sweep_file,
    use_plugins,
    wait_until,
    written,
)

from bench.execution.capacity import Capacity, Node
from bench.execution.head import HeadWatch
from bench.execution.progress import Progress
from bench.execution.queue import Outcome, ReadyQueue
from bench.planning.graph import make_job
from bench.planning.resources import Needs

pytestmark = pytest.mark.ray

GONE_S = 30  # until a stopped run and all that it started must be gone; measured: 3 to 8


def wait_for(process: "subprocess.Popen[str]", condition: Callable[[], object]) -> list[psutil.Process]:
    """Wait for something of a run; everything that the run has started by then."""
    wait_until(lambda: condition() or process.poll() is not None, 120)
    assert process.poll() is None, ended(process).out
    time.sleep(1)  # into the jobs that come next
    return psutil.Process(process.pid).children(recursive=True)


def assert_gone(processes: list[psutil.Process]) -> None:
    assert len(processes) > 3  # Ray's servers and workers were there
    _, alive = psutil.wait_procs(processes, timeout=GONE_S)
    assert alive == []


def slow_sweep(folder: Path, seconds: float) -> Path:
    methods = ["random_real", {"name": "slow", "seconds": seconds}]
    distill = {"architectures": ["convnet-d1-w4"], "seeds": [0, 1, 2]}
    return sweep_file(folder, methods=methods, ipc=[1], distill=distill)


def undisturbed(sweep: Path, folder: Path, *words: str) -> dict[str, dict[str, Any]]:
    """The records of an inline run."""
    assert run_inline(sweep, folder, *words).code == 0
    return stable_records(folder)


def artifact_files(out: Path) -> dict[str, bytes]:
    """The content of all artifacts, but not what each says of its making."""
    paths = (path for path in (out / "artifacts").rglob("*") if path.is_file() and path.name != "meta.json")
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def test_workers_that_die_are_tried_again_and_the_rest_is_as_if_inline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A distillation that dies in its sixth step goes on from there in the next worker."""
    path, seen, out = use_plugins(tmp_path / "site", monkeypatch), tmp_path / "seen", tmp_path / "out"
    environment = tmp_path / "environment"
    good = [
        *("full", "random_real", SLOW_DM, {"name": "environment", "file": str(environment)}),
        {"name": "dies", "marker": str(tmp_path / "marker")},
    ]
    same = {
        "ipc": [1],
        "distill": {"architectures": ["convnet-d1-w4"], "seeds": [0]},
        "evaluate": {"architectures": ["mlp"], "students": 1, "protocol": "quick", "snapshots": True},
    }
    sweep = sweep_file(tmp_path, methods=[*good, {"name": "dies"}], **same)
    monkeypatch.setenv("SEEN", str(seen))
    monkeypatch.setenv("DIES", "6")
    run = program("run", sweep, "--out", out, path=path)
    assert (run.code, run.err) == (1, "")
    assert run.text.count("tried again: dies digits ipc 1 seed 0: its process died") == 3
    died = "its process died 3 times (killed, out of memory, or its GPU failed)"
    assert f"failed: dies digits ipc 1 seed 0: {died}" in run.text
    assert "failed: dies digits ipc 1 seed 0 on mlp: not run: dies digits ipc 1 seed 0 failed" in run.text
    assert "tried again: slow_dm digits ipc 1 convnet-d1-w4 seed 0: its process died" in run.text
    assert steps_seen(seen) == SLOW_DM["steps"] + 1
    assert "distill 5/6 (1 failed) evaluate 5/6 (1 failed)" in run.text
    assert "10 jobs in" in run.text
    assert environment.read_text() == f"{os.nice(0)} 0"  # no nicer than we are; telemetry
    assert leftovers(out) == []
    assert not (out / "checkpoints").exists()
    monkeypatch.delenv("DIES")
    alone = sweep_file(tmp_path / "alone", methods=good, **same)
    assert stable_records(out) == undisturbed(alone, tmp_path / "inline")
    assert artifact_files(out) == artifact_files(tmp_path / "inline")


def test_killed_driver_loses_nothing_that_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = use_plugins(tmp_path / "site", monkeypatch), tmp_path / "out"
    methods = ["full", "random_real", {"name": "slow", "seconds": 60.0}]  # the last one holds its slot
    sweep = sweep_file(
        tmp_path, methods=methods, ipc=[1], distill={"architectures": ["convnet-d1-w4"], "seeds": [0]}
    )
    with started("run", sweep, "--out", out, path=path) as process:
        children = wait_for(process, lambda: any((out / "records").glob("*.json")))
        # Ray's two agents do no work, and look for their servers for another minute
        children = [child for child in children if not child.name().endswith("Agent")]
        process.kill()
        assert_gone(children)
    before = written(out)
    finished = {name: at for name, at in before.items() if "/." not in name}
    n_records = sum(name.startswith("records/") for name in finished)
    assert 1 <= n_records < 3
    monkeypatch.setenv("FAST", "1")
    run = run_inline(sweep, out)
    assert (run.code, run.err) == (0, "")
    assert "distill 3/3 evaluate 3/3" in run.text
    n_artifacts = sum(name.endswith("meta.json") for name in finished)
    assert f"{6 - n_records - n_artifacts} jobs in" in run.text
    assert finished.items() <= written(out).items()
    assert leftovers(out) == []
    assert stable_records(out) == undisturbed(sweep, tmp_path / "inline")


def _ctrl_c(pid: int) -> None:
    os.killpg(pid, signal.SIGINT)  # as a terminal does: to all in the foreground


def _terminate(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)


@pytest.mark.parametrize("stop", [_ctrl_c, _terminate])
def test_stopped_run_leaves_no_process_and_no_half_file(
    stop: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = use_plugins(tmp_path / "site", monkeypatch), tmp_path / "out"
    sweep = slow_sweep(tmp_path, 120)
    with started("run", sweep, "--out", out, path=path) as process:
        children = wait_for(process, lambda: any((out / "artifacts").glob("[!.]*")))
        begin = time.monotonic()
        stop(process.pid)
        run: Ended = ended(process, timeout=GONE_S)
        assert_gone(children)
        assert time.monotonic() - begin < GONE_S
    assert run.code == 130
    assert f"the same command goes on:\n  ddbench run {sweep} --out {out}\n" in run.out
    assert "Traceback" not in run.err
    assert leftovers(out) == []
    before = written(out)
    monkeypatch.setenv("FAST", "1")
    assert run_inline(sweep, out).code == 0
    assert before.items() <= written(out).items()
    assert len(stable_records(out)) == 6


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "auto", "nonsense", "ray://127.0.0.1:{port}"])
def test_address_without_a_cluster_is_refused_within_seconds(address: str, tmp_path: Path) -> None:
    if address == "auto" and any("gcs_server" in p.name() for p in psutil.process_iter()):
        pytest.skip("somebody's Ray runs on this machine: auto would join it")
    address = address.format(port=_free_port())
    begin = time.monotonic()
    run = ddbench("run", sweep_file(tmp_path), "--out", tmp_path / "out", "--address", address)
    assert time.monotonic() - begin < 30
    assert run.code == 2
    assert run.err.count("\n") == 1
    assert f"--address {address}: no Ray cluster answers" in run.err
    assert not (tmp_path / "out").exists()


def test_a_trial_gets_the_best_job_that_is_ready_when_its_process_is(tmp_path: Path) -> None:
    """What Tune keeps waiting are trials, not jobs: what becomes ready meanwhile goes first."""
    from bench.execution.ray_tune import JobSearcher, Searcher  # a second

    jobs = {job.key: job for job in (make_job("prepare", f"p{n}", {"n": n}, {}) for n in range(3))}
    first, *_ = jobs
    distill = make_job("distill", "d", {"ipc": 1}, {"role": first})
    jobs[distill.key] = distill
    there = Capacity((Node(2),), dict.fromkeys(("prepare", "distill"), Needs(1, 0)))
    queue, outcome = ReadyQueue(jobs, set(), set(jobs), there.kinds), Outcome()
    told = SimpleNamespace(finished=lambda key, ok, seconds: None, say=lambda text: None)
    head = cast(HeadWatch, SimpleNamespace(check=lambda: None))
    searcher = JobSearcher(queue, cast(Progress, told), outcome, tmp_path, head, there)
    asked = {"needs": {"CPU": 1}}
    assert [searcher.suggest(name) for name in "abcd"] == [
        *({"trial": name, **asked} for name in "abc"),
        None,
    ]
    assert searcher.job("b").key == first
    assert searcher.job("b").key == first, "it keeps it, when it is tried again too"
    searcher.on_trial_complete("b", {"ok": True, "error": None, "seconds": 1.0})
    assert searcher.suggest("d") == {"trial": "d", **asked}
    assert searcher.job("a").key == distill.key
    assert pickle.loads((tmp_path / "a").read_bytes()) == distill
    searcher.on_trial_complete("c", error=True)  # its process never came
    assert list(outcome.failed) == [list(jobs)[1]]
    assert searcher.job("d").key == list(jobs)[2]
    for name in "ad":
        searcher.on_trial_complete(name, {"ok": True, "error": None, "seconds": 1.0})
    assert (outcome.finished, queue.open) == (3, set())
    assert searcher.suggest("e") == Searcher.FINISHED


def test_processes_of_a_cluster_with_tokens_are_not_told_to_go_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bench.execution.ray_cluster import ENVIRONMENT, worker_environment

    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_worker_niceness", "5")
    mine = {"RAY_AUTH_MODE": "token", "RAY_worker_niceness": "5"}
    assert worker_environment() == {name: os.environ[name] for name in ENVIRONMENT}
    assert mine.items() <= worker_environment().items()
