"""Reports of the jobs without a loop of their own: what is counted, and what is written."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import MakeProblem, WriteProtocol
from helpers.cli import sweep_file, wait_until
from rich.console import Console

from bench.core import counting
from bench.core.counting import WorkCounter
from bench.core.loop import PROGRESS, StepReport, read_step_report
from bench.core.networks.architecture import parse_architecture
from bench.core.preprocess import Preprocess
from bench.core.training import Recipe, in_pieces
from bench.data.dataset import Dataset
from bench.evaluation.scoring import EvaluationSetting, rates_on_holdout, train_and_score
from bench.execution import jobs, step_reports
from bench.execution.session import Session
from bench.execution.step_reports import reporting
from bench.planning.protocols import Protocol
from methods.blocks.dynamics import Dynamics
from methods.blocks.experts import ExpertEpoch
from methods.blocks.network_pools import Embedding
from methods.blocks.parameterise.pixels import Pixels
from methods.blocks.teacher import Teacher


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(now=100.0)
    monkeypatch.setattr(counting, "time", SimpleNamespace(perf_counter=lambda: found.now))
    return found


def told(counter: WorkCounter) -> tuple[int, int, float, float]:
    report = counter.report()
    assert report is not None
    assert report.loss is None
    return report.step, report.total, report.speed, report.left_s


def test_steps_and_what_is_scored_after_them_make_the_time_left(clock: SimpleNamespace) -> None:
    counter = WorkCounter()
    assert counter.report() is None
    with counting.counting(counter):
        counting.announce(20, batch_size=50, n_images=10, then=300)  # 20 steps of 30 passes, and 300
        assert counter.report() is None
        clock.now += 6
        counting.count_steps(10)
        assert told(counter) == (10, 20, 10 / 6, 12.0)  # 300 of 900 passes in 6 s
        clock.now += 6
        counting.count_steps(10)
        assert told(counter) == (20, 20, 20 / 12, 6.0)
        clock.now += 6
        counting.count_passes(300)
        assert told(counter)[3] == 0.0
    counting.count_passes(1)
    assert counter.passes == 900, "outside nobody counts"


def test_rounds_that_are_to_come_count_before_they_begin(clock: SimpleNamespace) -> None:
    counter = WorkCounter()
    with counting.counting(counter):
        counting.announce_rounds(4)
        for _ in range(4):
            counting.announce(5, batch_size=1, n_images=1)
            clock.now += 2
            counting.count_steps(5)
            assert told(counter)[1] == 20
        assert told(counter) == (20, 20, 20 / 8, 0.0)


def test_images_in_pieces_are_counted_each_once() -> None:
    with counting.counting(counter := WorkCounter()):
        counting.count_steps(5)
        counting.count_passes(7)
        assert (counter.steps, counter.passes) == (0, 0), "nothing is announced"
        counting.announce(0, batch_size=1, n_images=1, then=120)
        assert len(in_pieces(lambda x: x, torch.zeros(120, 1))) == 120
    assert counter.passes == 120


def test_a_report_is_written_while_the_work_goes_on_and_gone_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_reports, "REPORT_S", 0.001)
    folder = tmp_path / "checkpoints" / "key"
    with reporting(folder):
        counting.announce(10, batch_size=1, n_images=1)
        counting.count_steps(4)
        wait_until(lambda: (folder / PROGRESS).exists())
        found = read_step_report(folder)
    assert found is not None
    assert (found.step, found.total) == (4, 10)
    assert not folder.exists()


# --- what each kind of job tells --------------------------------------------------------------------------


def assert_told(counter: WorkCounter, steps: int) -> None:
    """It has taken all the steps that it announced, and nothing is left."""
    report = counter.report()
    assert report is not None
    assert (report.step, report.total, report.left_s) == (steps, steps, 0.0)


@pytest.mark.parametrize(
    ("block", "steps"),
    [
        (Embedding(steps=3), 3),
        (Dynamics(epochs=2, batch_size=500), 2 * 3),
        (Teacher(batch_size=500, lr=0.1, epochs=2), 2 * 3),
        (ExpertEpoch(block=0, size=2, epoch=1, lr=0.1, batch_size=500), 2 * 3),
        # 1437 images are 718 and 719
        (Teacher(batch_size=718, lr=0.1, epochs=2), 2 * 2),
        (ExpertEpoch(block=0, size=2, epoch=1, lr=0.1, batch_size=718), 2 * 2),
    ],
)
def test_prerequisites_tell_all_of_their_steps(
    block: Any, steps: int, make_problem: MakeProblem, digits: Dataset
) -> None:
    assert len(digits.train.images) == 1437
    problem = make_problem(block, architecture="mlp-w8")
    with counting.counting(counter := WorkCounter()):
        block.build(problem)
    assert_told(counter, steps)


RECIPE = Recipe(batch_size=4, lr=0.1, steps=3)


@pytest.mark.parametrize("students", [2, 5])  # one by one, and together
def test_evaluations_tell_the_steps_of_all_students(students: int, digits: Dataset) -> None:
    protocol = Protocol(name="p", version=1, about="", recipe=RECIPE, rates=(0.01, 0.1))
    net = parse_architecture("mlp-w8")
    setting = EvaluationSetting(digits, net, protocol, students, 0, torch.device("cpu"))
    preprocess = Preprocess(digits.mean, digits.std)
    members = torch.cat([(digits.train.labels == c).nonzero()[:1, 0] for c in range(10)])
    distilled = Pixels(preprocess(digits.train.images[members]), [1] * 10, preprocess)
    with counting.counting(counter := WorkCounter()):
        train_and_score(distilled, setting, curve=[0.5])
    assert_told(counter, students * 3)
    with counting.counting(counter := WorkCounter()):
        rates_on_holdout(distilled, setting, 0.1)
    assert_told(counter, 2 * students * 3)


def test_jobs_report_where_their_progress_is_looked_for(
    tmp_path: Path, write_protocol: WriteProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prepare and evaluate jobs; a distillation's own loop does, and the snapshots are told of."""
    told: dict[str, StepReport | None] = {}

    @contextlib.contextmanager
    def watched(folder: Path) -> Iterator[None]:
        with reporting(folder) as counter:
            yield
            told[folder.name] = counter.report()

    monkeypatch.setattr(jobs, "reporting", watched)
    write_protocol("fast")  # of 10 steps
    methods = [{"name": "herding", "network_steps": 2}, {"name": "dm", "steps": 10, "batch_real": 8}]
    scored = {"architectures": ["mlp"], "students": 1, "protocol": "fast", "snapshots": True}
    distill = {"architectures": ["convnet-d1-w4"], "seeds": [0]}
    sweep = sweep_file(tmp_path, methods=methods, ipc=[1], distill=distill, evaluate=scored)
    session = Session.open(sweep, [], tmp_path / "out", on_cluster=False)
    assert session.run("inline", None, None, Console(quiet=True)).failed == {}
    planned = session.jobs
    assert {planned[key].label: report and report.total for key, report in told.items()} == {
        "Embedding(steps=2, lr=0.01, batch_size=256) digits convnet-d1-w4 seed 0": 2,
        "herding digits ipc 1 convnet-d1-w4 seed 0 on mlp": 10,
        "dm digits ipc 1 convnet-d1-w4 seed 0 on mlp": 4 * 10,
    }
    assert all(report and report.step == report.total for report in told.values())
