"""A device that fails ends its process and nothing else; memory that is short is told in a line."""

import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.cli import leftovers, program, run_inline, sweep_file, use_plugins
from helpers.plan import keys, planned, sweep

from bench.core.errors import UserError
from bench.execution import evaluate_job, jobs
from bench.execution.faults import STICKY, batch_sizes, is_device_fault, out_of_memory, told_failure
from bench.planning.graph import Job
from bench.records.reader import read_records

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
SHORT = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which less"


def raised(*errors: BaseException) -> BaseException:
    """The last of these errors, each raised from the one before."""
    for cause, error in pairwise(errors):
        error.__cause__ = cause
    return errors[-1]


# --- what is a fault ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*STICKY, "CUDA error: an ILLEGAL memory access was encountered"])
@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError])
def test_errors_that_stay_are_faults_however_wrapped(text: str, kind: type[Exception]) -> None:
    error = kind(f"CUDA error: {text}\nCUDA kernel errors might be asynchronously reported")
    assert is_device_fault(error, CPU)
    assert is_device_fault(raised(error, ValueError("no step"), UserError("lower the rate")), CPU)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("expected a 4-dimensional input"),
        torch.OutOfMemoryError(SHORT),
        UserError("an illegal memory access is what this says, and it is no error of torch"),
        RuntimeError("CUDA error: invalid device ordinal"),
        AssertionError("device"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_failures_are_their_jobs_own(error: Exception) -> None:
    assert not is_device_fault(error, CPU)


@pytest.mark.parametrize("answers", [True, False])
def test_a_gpu_is_asked_after_every_failure(answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of a kernel may come late, and a method may have caught it."""

    def synchronize(_: torch.device) -> None:
        if not answers:
            raise torch.AcceleratorError("CUDA error: whatever")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    assert is_device_fault(ValueError("an index"), GPU) is not answers
    assert not is_device_fault(ValueError("an index"), CPU)


# --- what a fault ends --------------------------------------------------------------------------------------


def faulty(tmp_path: Path) -> Path:
    """A sweep whose first distillation fails so that all else in its process does."""
    methods = [{"name": "faults", "marker": str(tmp_path / "marker")}, "random_real"]
    distill = {"architectures": ["convnet-d1-w4"], "seeds": [0, 1, 2]}
    return sweep_file(tmp_path, methods=methods, ipc=[1], distill=distill)


@pytest.mark.ray
def test_only_the_worker_ends_and_its_job_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = use_plugins(tmp_path / "site", monkeypatch), tmp_path / "out"
    run = program("run", faulty(tmp_path), "--out", out, path=path)
    assert (run.code, run.err) == (0, "")
    assert run.text.count("tried again: faults digits ipc 1 seed") == run.text.count("tried again") == 1
    assert len(read_records(out)[0]) == 6
    assert not list((out / "logs").glob("*"))


def test_without_ray_the_run_stops_with_the_command_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_plugins(tmp_path / "site", monkeypatch)
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:  # after which the process is sound again, as a new one is
        for module, name in ((jobs, "make_problem"), (evaluate_job, "load_distilled")):
            patch.setattr(module, name, getattr(module, name))
        run = run_inline(faulty(tmp_path), out)
    assert (run.code, run.err) == (1, "")
    assert "RuntimeError: CUDA error: device-side assert triggered: the GPU fails whatever runs" in run.text
    assert "the same command goes on: ddbench run" in run.text
    assert "Traceback" not in run.out
    assert run.text.count("CUDA error") == 1, "no other job was begun"
    (log,) = out.glob("logs/*")
    assert "the process ends" in log.read_text()
    assert run_inline(tmp_path / "sweep.yaml", out).code == 0
    assert len(read_records(out)[0]) == 6
    assert leftovers(out) == []


# --- memory that is short -----------------------------------------------------------------------------------


def job(kind: str, method: Any = "dm") -> Job:
    plan = planned(sweep(methods=[method]))
    (key,) = keys(kind, plan)
    return plan[key]


@pytest.fixture
def _of_8_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(total_memory=8 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 7 * 2**30)


@pytest.mark.usefixtures("_of_8_gib")
@pytest.mark.parametrize(
    ("gpus", "kind", "told"),
    [
        (1, "distill", "9.0 GiB of the 8.0 .* lower batch_real \\(64, of which about 56 may fit\\)$"),
        (0.25, "distill", "9.0 GiB of the 2.0 .* about 14 may fit\\), or raise resources.gpus \\(0.25\\)$"),
        (1, "evaluate", "lower batch_size \\(50, of which about 44 may fit\\)$"),
    ],
)
def test_short_memory_says_what_would_fit(gpus: float, kind: str, told: str) -> None:
    error = torch.OutOfMemoryError(SHORT)
    found = told_failure(raised(error, ValueError("of the method")), job(kind), gpus, GPU)
    assert len(found.splitlines()) == 1
    assert re.search(told, found), found


def test_short_memory_elsewhere_repeats_what_was_said() -> None:
    found = out_of_memory(torch.OutOfMemoryError(SHORT), job("distill", "noise"), 0, CPU)
    assert found == "out of memory: CUDA out of memory: take a smaller network"


def test_sizes_to_lower_are_those_of_batches_and_unrolls() -> None:
    assert batch_sizes(job("distill", "rtp").identity).keys() >= {"batch_per_class", "batch_real", "unroll"}
    assert batch_sizes(job("distill", "random_real").identity) == {}


def test_a_job_without_memory_fails_alone_and_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: Any) -> None:
        raise torch.OutOfMemoryError(SHORT)

    monkeypatch.setattr("methods.dm.DM.distill", short)
    sweep = sweep_file(tmp_path, methods=["random_real", {"name": "dm", "steps": 2}], ipc=[1])
    run = run_inline(sweep, tmp_path / "out")
    assert run.code == 1
    assert (
        "dm digits ipc 1 convnet-d1-w4 seed 0: out of memory: CUDA out of memory: lower batch_real"
        in run.text
    )
    assert {record.method for record in read_records(tmp_path / "out")[0]} == {"random_real"}
