"""`plan --measure`: a few steps of what no finished job is like, for a cost before anything runs."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import WriteProtocol
from helpers.cli import ddbench, sweep_file

from bench.core import timing
from bench.core.distilled import DistilledDataset
from bench.core.training import in_pieces
from bench.data.dataset import Dataset
from bench.planning.estimate import Estimator
from bench.planning.graph import Job, plan_sweep
from bench.planning.protocols import load_protocol
from bench.planning.resources import Resources
from bench.planning.sweep import load_sweep
from bench.tools import measure
from bench.tools.measure import Measurer, TwoSteps, measure_plan, needed

CPU = torch.device("cpu")
DISTILL = {"architectures": ["convnet-d1-w4"], "seeds": [0, 1]}


def test_a_training_takes_two_steps_of_which_the_second_stands_for_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    two, taken = TwoSteps(CPU), []
    with timing.watching(two):
        for step, spent in zip(timing.paced(100), (9.0, 2.0), strict=True):  # the first is cold
            taken.append(step)
            clock.now += spent
        assert list(timing.paced(1)) == [0]
        assert list(timing.paced(0)) == []
    assert taken == [0, 99]
    assert two.left_out_s == 98 * 2.0


@pytest.mark.parametrize("n", [1, 50, 51, 137, 500])
def test_pieces_that_are_left_out_leave_the_shape(n: int) -> None:
    images = torch.arange(n).float()[:, None]
    seen: list[int] = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return x

    with timing.watching(TwoSteps(CPU)):
        found = in_pieces(look, images)
    assert found.shape == images.shape
    assert len(seen) == min(2, -(-n // 50))
    torch.testing.assert_close(in_pieces(look, images), images, rtol=0, atol=0)


def plan(folder: Path, digits: Dataset, **changes: Any) -> dict[str, Job]:
    sweep = load_sweep(sweep_file(folder, **{"ipc": [1], "distill": DISTILL} | changes))
    protocols = [load_protocol(name) for name in sweep.evaluate.protocol]
    return plan_sweep(sweep, {"digits": digits}, protocols)


def measured(jobs: dict[str, Job], digits: Dataset, costs: Estimator) -> tuple[list[str], list[str]]:
    """What was measured, and what could not be."""
    told: list[str] = []
    problems = measure_plan(jobs, jobs, costs, {digits.fingerprint: digits}, Resources(), told.append)
    return told, problems


@pytest.mark.parametrize("labels", ["teacher", "soft"])
def test_one_of_each_group_is_measured_and_prices_all(
    tmp_path: Path, digits: Dataset, write_protocol: WriteProtocol, labels: str
) -> None:
    teacher = {"recipe": {"batch_size": 50, "lr": 0.05, "steps": 100_000}, "stops": [0.5, 1.0]}
    write_protocol("taught", labels=labels, teacher=teacher, rates=[0.03])
    methods = [
        {"name": "herding", "network_steps": 100_000},
        {"name": "dm", "steps": 100_000, "batch_real": 8},
        {"name": "mtt", "steps": 100_000, "experts": 12, "start_epochs": 2, "inner_steps": 1},
    ]
    evaluate = {"architectures": ["mlp"], "students": 2, "protocol": "taught", "snapshots": True}
    jobs = plan(tmp_path, digits, methods=methods, evaluate=evaluate)
    costs = Estimator(jobs)
    told, problems = measured(jobs, digits, costs)
    assert problems == []
    assert told == [f"{name} digits ipc 1 convnet-d1-w4 seed 0" for name in ("herding", "dm", "mtt")]
    seconds = {key: costs.seconds(key) for key in jobs}
    assert all(s is not None and s > 0 for s in seconds.values())
    by_label = {job.label: seconds[key] for key, job in jobs.items()}
    experts = [by_label[f"experts {block} epoch 1 digits convnet-d1-w4 seed 0"] for block in ("0-9", "10-11")]
    assert experts[1] == pytest.approx(experts[0] / 5)
    # dm's three snapshots are scored too, herding has none
    alike = [by_label[f"{name} digits ipc 1 convnet-d1-w4 seed 0 on mlp"] for name in ("herding", "dm")]
    assert alike[1] == pytest.approx(4 * alike[0])
    assert measured(jobs, digits, costs) == ([], []), "all is known now"


def test_what_fails_is_named_and_the_rest_is_measured(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = plan(tmp_path, digits, methods=["random_real", {"name": "dm", "steps": 5, "batch_real": 8}])
    costs = Estimator(jobs)

    def fails(*_: Any) -> None:
        raise MemoryError("no room\nfor it")

    monkeypatch.setattr("methods.dm.DM.distill", fails)
    _, problems = measured(jobs, digits, costs)
    assert problems == [
        f"not measured: dm digits ipc 1 convnet-d1-w4 seed {seed}: MemoryError: no room" for seed in (0, 1)
    ]
    known = {job.label for key, job in jobs.items() if costs.seconds(key) is not None}
    assert known == {f"random_real digits ipc 1 seed {s}{on}" for s in (0, 1) for on in ("", " on mlp")}


def test_prerequisites_stand_before_what_needs_them(tmp_path: Path, digits: Dataset) -> None:
    methods = [{"name": "mtt", "steps": 1, "experts": 2, "start_epochs": 1, "expert_epochs": 1}, "herding"]
    jobs = plan(tmp_path, digits, methods=methods)
    mtt = next(key for key, job in jobs.items() if job.kind == "distill")
    found = needed(mtt, jobs)
    assert [jobs[key].label.split(" digits")[0] for key in found] == [
        f"experts 0-1 epoch {epoch}" for epoch in range(len(found))
    ]
    assert len(found) > 1
    for before, after in itertools.pairwise(found):
        assert before in jobs[after].inputs.values()


def test_a_plan_of_new_data_has_a_cost(tmp_path: Path) -> None:
    methods = ["random_real", {"name": "dm", "steps": 3_600_000, "batch_real": 8}]
    sweep = sweep_file(tmp_path, methods=methods, ipc=[1], distill=DISTILL)
    ended = ddbench("plan", sweep, "--out", tmp_path / "out", "--measure")
    assert (ended.code, ended.err) == (0, "")
    *_, counts, work, longest = ended.out.splitlines()
    assert counts.endswith("to run: 4 distill, 4 evaluate")
    assert work.startswith("about ")
    assert work.endswith(" h of work, shared by the workers")
    assert longest.startswith("the longest job: dm digits ipc 1 convnet-d1-w4 seed ")
    assert longest.endswith(" h")
    assert not (tmp_path / "out").exists()


def test_sets_of_equal_size_with_other_recipes_are_measured_apart(
    tmp_path: Path, digits: Dataset, write_protocol: WriteProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four tiles a class, and four images: a rule gives the tiles more steps."""
    write_protocol("ruled", rules=[{"multi_formation": True, "recipe": {"steps": 500}}])
    small = {"steps": 2, "batch_real": 8, "parameterisation": "multi_formation"}
    methods = ["random_real", {"name": "compose", **small}]
    evaluate = {"architectures": ["mlp"], "students": 2, "protocol": "ruled"}
    jobs = plan(tmp_path, digits, methods=methods, evaluate=evaluate, ipc=[1, 4])
    steps: list[tuple[int, int]] = []

    def note(_: Measurer, job: Job, distilled: DistilledDataset) -> float:
        steps.append((len(distilled.decode()[0]), job.identity["protocol"]["recipe"]["steps"]))
        return 1.0

    monkeypatch.setattr(Measurer, "_students_s", note)
    assert measured(jobs, digits, Estimator(jobs))[1] == []
    assert sorted(steps) == [(10, 10), (40, 10), (40, 500), (160, 500)]
