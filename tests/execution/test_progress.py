"""What is seen while a sweep runs: the sweep's line, and one for each running job; and the time left."""

import dataclasses
import io
import json
import re
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.cli import wait_until
from rich.console import Console

from bench.core.loop import CHECKPOINT, PROGRESS, StepReport
from bench.execution import progress
from bench.execution.progress import Progress, describe_step
from bench.execution.store import Store
from bench.planning.estimate import Estimate, Estimator, Source
from bench.planning.graph import Job, make_job


def distillation(name: str, seed: int = 0, steps: int = 1000, **inputs: str) -> Job:
    identity = {"method": name, "ipc": 1, "seed": seed, "hyperparameters": {"steps": steps}}
    return make_job("distill", f"{name} {seed}", identity, inputs)


ONE, TEN = (
    make_job("distill", f"idc digits ipc {i}", {"method": "idc", "ipc": i, "hyperparameters": {}}, {})
    for i in (1, 10)
)
JOBS = {job.key: job for job in (ONE, TEN)}
HALF = StepReport(step=340, total=1000, loss=1.2345, speed=45.4, left_s=12.3)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """No time passes but by `clock.now`."""
    found = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: found.now))
    return found


def tell(store: Store, job: Job, report: StepReport) -> None:
    folder = store.checkpoint(job.key)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PROGRESS).write_text(json.dumps(dataclasses.asdict(report)))


def watch(
    store: Store, out: io.StringIO, terminal: bool = False, jobs: dict[str, Job] = JOBS, workers: int = 2
) -> Progress:
    console = Console(file=out, width=120, force_terminal=terminal, _environ={})
    return Progress(Estimator(jobs), set(), workers, console, store)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "step 340/1000  loss 1.23  45 steps/s  about 12 s left"),
        ({"loss": None}, "step 340/1000  45 steps/s  about 12 s left"),
        ({"loss": 123456.0}, "step 340/1000  loss 1.23e+05  45 steps/s  about 12 s left"),
        ({"speed": 12345.6, "left_s": 0.05}, "step 340/1000  loss 1.23  12,346 steps/s  about 0 s left"),
        ({"speed": 3.21, "left_s": 205.0}, "step 340/1000  loss 1.23  3.2 steps/s  about 3 min left"),
        ({"speed": 0.0123, "left_s": 53658.0}, "step 340/1000  loss 1.23  0.012 steps/s  about 14.9 h left"),
    ],
)
def test_what_a_distillation_tells(changes: dict[str, float | None], expected: str) -> None:
    assert describe_step(dataclasses.replace(HALF, **changes)) == expected


def test_running_jobs_have_a_line_each(tmp_path: Path) -> None:
    store = Store(tmp_path)
    shown = watch(store, io.StringIO())
    for job in JOBS.values():
        tell(store, job, HALF)
    assert shown.lines().plain == "   0 s  distill 0/2"
    shown.started(TEN.key)
    assert shown.lines().plain.splitlines() == [
        "   0 s  distill 0/2 (1 running)  at least 12 s left",  # nothing is known of the other one
        "  idc digits ipc 10  step 340/1000  loss 1.23  45 steps/s  about 12 s left",
    ]
    shown.started(ONE.key)
    assert len(shown.lines().plain.splitlines()) == 3
    (store.checkpoint(ONE.key) / PROGRESS).unlink()
    assert len(shown.lines().plain.splitlines()) == 2
    shown.finished(TEN.key, True, 1.0)
    assert shown.lines().plain == "   0 s  distill 1/2 (1 running)"


def test_a_pipe_gets_lines_while_one_long_job_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PRINT_EVERY_S", 0.01)
    store, out, before = Store(tmp_path), io.StringIO(), threading.active_count()
    tell(store, ONE, HALF)
    block = (
        "   0 s  distill 0/2 (1 running)  at least 12 s left\n"
        "  idc digits ipc 1  step 340/1000  loss 1.23  45 steps/s  about 12 s left\n"
    )
    with watch(store, out) as shown:
        shown.started(ONE.key)
        wait_until(lambda: out.getvalue().count(block) >= 2)
        for i in range(50):
            shown.say(f"said {i}")
        shown.finished(ONE.key, True, 1.0)
    assert threading.active_count() == before
    assert "\x1b" not in out.getvalue()
    lines = out.getvalue().splitlines()
    assert lines[-1] == "   0 s  distill 1/2"
    assert [line for line in lines if line.startswith("said")] == [f"said {i}" for i in range(50)]
    told = {line for line in lines if not line.startswith("said")}
    assert told <= {*block.splitlines(), "   0 s  distill 0/2", "   0 s  distill 1/2"}


def test_a_short_run_in_a_pipe_has_its_last_line_only(tmp_path: Path) -> None:
    out = io.StringIO()
    with watch(Store(tmp_path), out) as shown:
        shown.started(ONE.key)
        shown.finished(ONE.key, True, 0.1)
    assert out.getvalue() == "   0 s  distill 1/2\n"


def test_a_terminal_has_a_bar_for_each_kind_and_each_running_distillation(tmp_path: Path) -> None:
    store, out = Store(tmp_path), io.StringIO()
    tell(store, ONE, HALF)

    def drawn() -> list[str]:
        """The lines of the latest picture, without colours and bars."""
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue().replace("\r", "\n"))
        return [" ".join(re.sub("[━╸╺]", "", line).split()) for line in plain.splitlines()]

    with watch(store, out, terminal=True) as shown:
        shown.started(ONE.key)
        wait_until(lambda: "idc digits ipc 1 340/1000 loss 1.23 45 steps/s about 12 s left" in drawn())
        assert "distill 0/2 1 running" in drawn()
        shown.finished(ONE.key, True, 0.1)
        shown.finished(TEN.key, False, 0.1)
        wait_until(lambda: "distill 1/2 1 failed" in drawn())
    assert drawn()[-1] == "0 s distill 1/2 (1 failed)"


def test_the_folder_is_swept_of_reports_but_not_of_checkpoints_that_are_needed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for job in JOBS.values():
        tell(store, job, HALF)
    (store.checkpoint(ONE.key) / CHECKPOINT).write_text("kept")
    store.sweep_up()
    assert [path.name for path in store.checkpoints.rglob("*")] == [ONE.key, CHECKPOINT]
    store.publish(ONE.key, {}, lambda folder: None)
    store.sweep_up()
    assert not store.checkpoints.exists()


# --- time left ----------------------------------------------------------------------------------------------


def left(shown: Progress) -> str:
    return str(shown.left(shown.reports()))


def test_a_finished_job_of_another_method_says_nothing(tmp_path: Path) -> None:
    """Milliseconds of random_real once stood for hours of dm."""
    jobs = {job.key: job for job in (distillation("random_real", s, 1) for s in range(9))}
    jobs |= {job.key: job for job in (distillation("dm", s) for s in (0, 1))}
    shown = watch(Store(tmp_path), io.StringIO(), jobs=jobs, workers=1)
    *fast, one, _ = jobs
    for key in fast:
        shown.started(key)
        shown.finished(key, True, 0.003)
    assert shown.left({}) == Estimate(0.0, at_least=True)
    assert shown.lines().plain == "   0 s  distill 9/11"
    shown.started(one)
    tell(shown.store, jobs[one], StepReport(100, 1000, None, 0.01, 90_000))
    assert left(shown) == "about 52.8 h"  # 25 h of the running one, and 100,000 s of the same again
    shown.finished(one, True, 7200.0)
    assert left(shown) == "about 2.0 h"  # what has finished is worth more than what was told


def test_running_jobs_go_by_what_they_tell(tmp_path: Path, clock: SimpleNamespace) -> None:
    jobs = {job.key: job for job in (distillation("dm", s) for s in range(3))}
    shown = watch(Store(tmp_path), io.StringIO(), jobs=jobs, workers=1)
    first, *_ = jobs
    shown.costs.learn_job(first, 100.0, Source.FINISHED)
    assert left(shown) == "about 5 min"
    shown.started(first)
    clock.now = 30.0
    assert shown.left({}) == Estimate(70.0 + 200.0, at_least=False)  # silent yet: what is expected, less 30 s
    tell(shown.store, jobs[first], StepReport(500, 1000, None, 1.0, 500.0))
    assert shown.left(shown.reports()) == Estimate(500.0 + 200.0, at_least=False)
    clock.now = 150.0
    shown.stopped(first)  # its process died
    assert shown.left({}) == Estimate(300.0, at_least=False)


def test_a_chain_of_jobs_takes_its_time_on_however_many_workers(tmp_path: Path) -> None:
    links: list[Job] = []
    for n in range(3):
        inputs = {"before": links[-1].key} if links else {}
        links.append(distillation("dm", n, **inputs))
    jobs = {job.key: job for job in (*links, distillation("dm", 9))}
    for workers, seconds in ((1, 40.0), (2, 30.0), (8, 30.0)):
        shown = watch(Store(tmp_path), io.StringIO(), jobs=jobs, workers=workers)
        shown.costs.learn_job(links[0].key, 10.0, Source.FINISHED)
        assert shown.left({}) == Estimate(seconds, at_least=False)
