"""How large a sweep may be: seconds and memory of its parts, on jobs and records that are made up.

PYTHONPATH=tests python -m helpers.scale plan|queue|ray|records [NUMBER] [WORKERS]
"""

import io
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
from rich.console import Console

from bench.analysis.aggregate import summary_frame
from bench.execution.jobs import JobContext
from bench.execution.progress import Progress
from bench.execution.queue import Outcome, ReadyQueue, finish_job
from bench.execution.session import Session
from bench.execution.store import Store
from bench.planning.estimate import Estimator
from bench.planning.graph import Job, make_job
from bench.planning.resources import Needs
from bench.planning.shards import split_plan
from bench.records.columns import record_rows, record_table
from bench.records.naming import labelled
from helpers.cli import ddbench, sweep_file
from helpers.record import sweep

JOB_S = 0.01


@contextmanager
def told(what: str) -> Iterator[None]:
    """Say what a block takes: seconds of this process's work, of the clock, and the largest memory so far."""
    begin, worked = time.perf_counter(), time.process_time()
    yield
    seconds, cpu = time.perf_counter() - begin, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what}: {cpu:.1f} s of work, {seconds:.1f} s of the clock, peak {peak:,.0f} MiB")


def grid(folder: Path, jobs: int) -> Path:
    """A sweep of about so many jobs: a distillation and three evaluations of each set."""
    methods = ["random_real", "herding", "k_center", "dm", "dc", "dsa", "idm", "mtt"]
    students = ["mlp", "convnet-d1-w4", "convnet-d2-w8"]
    return sweep_file(
        folder,
        methods=methods,
        ipc=[1, 2, 5, 10],
        distill={"architectures": ["convnet-d1-w4"], "seeds": list(range(-(-jobs // 128)))},
        evaluate={"architectures": students, "students": 1, "protocol": "quick"},
    )


def plan(jobs: int) -> None:
    """`ddbench plan`, and a split into 64 shards."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = grid(Path(folder), jobs), Path(folder) / "out"
        with told(f"plan of {jobs:,} jobs and more"):
            ended = ddbench("plan", path, "--out", out)
        assert ended.code == 0, ended.err
        print(ended.out.splitlines()[-2])
        found = Session.open(path, [], out, on_cluster=False).jobs
        with told("split into 64 shards"):
            sizes = [len(shard) for shard in split_plan(found, 64)]
        print(f"from {min(sizes)} to {max(sizes)} jobs a shard")


def _jobs(folder: Path, number: int) -> dict[str, Job]:
    return Session.open(grid(folder, number), [], folder / "out", on_cluster=False).jobs


def _progress(jobs: dict[str, Job], workers: int, root: Path) -> Progress:
    return Progress(Estimator(jobs), set(), workers, Console(file=io.StringIO()), Store(root))


def queue(number: int, workers: int) -> None:
    """The queue and the progress alone, without Ray, for workers that are simulated: jobs take no time."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = _jobs(Path(folder), number)
        waiting, outcome, running = ReadyQueue(jobs, set(), set(jobs)), Outcome(workers), list[str]()
        progress = _progress(jobs, workers, Path(folder))
        with told(f"queue of {len(jobs):,} jobs for {workers} workers"):
            while waiting.open:
                while len(running) < workers and (job := waiting.next()):
                    progress.started(job.key)
                    running.append(job.key)
                result = {"ok": True, "error": None, "seconds": JOB_S}
                finish_job(waiting, progress, outcome, running.pop(0), result)
        with told("one line of progress"):
            progress.line({})


def sleep(config: dict[str, Any], context: dict[str, Any], folder: str) -> None:
    """In the place of a job."""
    from ray import tune

    time.sleep(JOB_S)
    tune.report({"ok": True, "error": None, "seconds": JOB_S})


def on_ray(number: int, workers: int) -> None:
    """A real Ray on this machine that is told of so many CPUs, and jobs that sleep."""
    from bench.execution import ray_tune

    with tempfile.TemporaryDirectory() as folder:
        identities = ({"method": "dm", "ipc": 1, "n": n, "hyperparameters": {}} for n in range(number))
        jobs = {job.key: job for job in (make_job("distill", "d", one, {}) for one in identities)}
        kinds = {"distill": Needs(1, 0)}
        chosen = ReadyQueue(jobs, set(), set(jobs), kinds)
        context = JobContext(folder, {}, cpus=1, gpus=0, exclusive=False, commit="")
        many = partial(ray_tune.ray.init, num_cpus=workers)
        with (
            mock.patch.object(ray_tune.ray, "init", many),
            mock.patch.object(ray_tune, "run_job_trial", sleep),
            ray_tune.cluster(None, kinds) as there,
            told(f"{len(chosen.open):,} jobs of {1000 * JOB_S:.0f} ms on Ray with {workers} workers"),
        ):
            outcome = ray_tune.run_ray(chosen, context, _progress(jobs, workers, Path(folder)), there)
        each = 1000 * outcome.seconds / max(1, outcome.finished)
        print(f"{each:.0f} ms of the clock a job, {len(outcome.failed)} failed")


def records(number: int) -> None:
    """From rows of records, a sample that is repeated at other ipcs, to the summary."""
    sample = record_table(sweep(seeds=10, versions={"torch": "2.1", "commit": "a" * 40, "sources": "b" * 64}))
    parts, ipc = [], np.array([0 if n is None else n for n in sample["ipc"].to_pylist()])
    for i in range(number // len(sample)):
        keys = pa.array([f"{key}{i:010}" for key in sample["key"].to_pylist()])
        changed = {"key": keys, "ipc": pa.array(ipc + 100 * i, pa.int64(), mask=ipc == 0)}
        parts.append(
            pa.table([changed.get(name, sample[name]) for name in sample.column_names], sample.schema)
        )
    table = pa.concat_tables(parts)
    with told(f"frame of {len(table):,} records ({table.nbytes / 2**20:,.0f} MiB as a table)"):
        frame = labelled(record_rows(table))
    with told("its summary"):
        rows = len(summary_frame(frame))
    print(f"{rows:,} rows")


if __name__ == "__main__":
    part, *numbers = sys.argv[1:]
    chosen = [int(text) for text in numbers]
    if part == "plan":
        plan(*chosen or [20_000])
    elif part == "records":
        records(*chosen or [1_000_000])
    else:
        {"queue": queue, "ray": on_ray}[part](*chosen or [2_000, 64])
