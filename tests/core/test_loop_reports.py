"""What a loop tells on the way: snapshots, losses, reports."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import MakeProblem
from helpers.loop import Killed, dying_network, files, keep, pixels, walk

from bench.core import loop
from bench.core.distilled import DistilledDataset, load_distilled
from bench.core.loop import Diverged, Loop, StepReport, read_step_report
from methods.dm import DM

METHOD = DM(steps=5, batch_real=8)


# --- snapshots --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (100, {0: 0.0, 10: 0.1, 20: 0.2, 50: 0.5}),
        (7, {0: 0.0, 1: 0.2, 4: 0.5}),
        (3, {0: 0.0, 1: 0.2, 2: 0.5}),
        (2, {0: 0.0, 1: 0.5}),
        (1, {0: 0.0}),
        (0, {}),
    ],
)
def test_snapshots_are_taken_after_these_steps(
    total: int, expected: dict[int, float], tmp_path: Path
) -> None:
    """The first is what it starts from; the last is the artifact itself."""
    kept, synthetic = Loop(tmp_path), pixels()
    with torch.no_grad():
        synthetic.images.fill_(0)
    for step in kept.steps(total, synthetic, "lr"):
        with torch.no_grad():
            synthetic.images.fill_(step + 1)
    assert {taken["step"]: taken["fraction"] for taken in kept.snapshots} == expected
    for taken in kept.snapshots:
        stored: DistilledDataset = load_distilled(tmp_path / taken["file"])
        assert torch.all(stored.decode()[0] == taken["step"])
    seconds = [0.0, *(taken["seconds"] for taken in kept.snapshots), kept.seconds]
    assert seconds == sorted(seconds)


def test_snapshots_survive_a_kill(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        walk(Loop(tmp_path, every_s=0), 10, kill=3)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path) if "snapshot" in name}
    assert before.keys() == {f"snapshot-{step}.safetensors" for step in (0, 1, 2)}
    kept = Loop(tmp_path, every_s=0)
    walk(kept, 10)
    taken = [(one["step"], one["fraction"]) for one in kept.snapshots]
    assert taken == [(0, 0.0), (1, 0.1), (2, 0.2), (5, 0.5)]
    assert all((tmp_path / name).stat().st_mtime_ns == at for name, at in before.items())


# --- a loss that is not finite ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("step", [0, 3, 4])
def test_a_loss_that_is_not_finite_names_its_step_and_what_to_lower(
    step: int, value: float, tmp_path: Path
) -> None:
    """Also where later losses are finite again; and whether or not the loop is kept."""
    for kept in (Loop(), Loop(tmp_path)):
        with pytest.raises(Diverged, match=rf"^the loss is not finite at step {step + 1} of 5: lower lr$"):
            walk(kept, 5, losses={step: value})
    assert issubclass(Diverged, FloatingPointError)


def test_dm_with_far_too_large_steps_diverges(make_problem: MakeProblem) -> None:
    with pytest.raises(Diverged, match=r"^the loss is not finite at step [23] of 4: lower lr$"):
        DM(steps=4, batch_real=8, lr=1e30).distill(make_problem())


def test_no_checkpoint_holds_what_has_diverged(tmp_path: Path) -> None:
    with pytest.raises(Diverged):
        walk(Loop(tmp_path, every_s=0), 5, losses={2: float("nan")})
    found = loop._read_checkpoint(tmp_path)
    assert found["done"] == 2


def test_a_loss_keeps_no_graph_alive_and_large_ones_are_finite() -> None:
    run = Loop().steps(1, pixels(), "lr")
    for _ in run:
        run.loss(torch.tensor(1e300, dtype=torch.float64, requires_grad=True) * 2)
        assert not run._losses[0][1].requires_grad


# --- what is told -----------------------------------------------------------------------------------------


def test_it_looks_at_the_losses_once_a_second_and_tells_their_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, looks = 0.0, []
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: clock))
    run = Loop(tmp_path).steps(100, pixels(), "lr")
    for step in run:
        told = read_step_report(tmp_path)
        if told and (not looks or told != looks[-1]):
            looks.append(told)
        clock += 0.25
        run.loss(torch.tensor(float(step)))
    assert [told.step for told in looks] == [4, 8, 10, 14, 18, 20, *range(24, 49, 4), 50, *range(54, 100, 4)]
    assert looks[0] == StepReport(step=4, total=100, loss=1.5, speed=4.0, left_s=24.0)
    assert looks[2] == StepReport(step=10, total=100, loss=8.5, speed=4.0, left_s=22.5)


def test_the_speed_is_this_process_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: clock))

    def distill(step_s: float, kill: int) -> None:
        nonlocal clock
        for step in Loop(tmp_path, every_s=0).steps(100, pixels(), "lr"):
            clock += step_s
            if step == kill:
                raise Killed

    for step_s in (100.0, 0.5):
        with pytest.raises(Killed):
            distill(step_s, kill=30 if step_s > 1 else 60)
    assert read_step_report(tmp_path) == StepReport(step=60, total=100, loss=None, speed=2.0, left_s=20.0)


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"step": 1}', '{"other": 1}'])
def test_no_report_is_read_from_what_is_none(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / loop.PROGRESS).write_text(content)
    assert read_step_report(tmp_path) is None


def test_reports_are_json_that_anyone_can_read(tmp_path: Path) -> None:
    walk(Loop(tmp_path), 3)
    told = json.loads((tmp_path / loop.PROGRESS).read_text())
    assert told.keys() == {"step", "total", "loss", "speed", "left_s"}
    assert (told["step"], told["total"], told["left_s"]) == (3, 3, 0.0)


# --- what it leaves alone ---------------------------------------------------------------------------------


def test_a_loop_without_a_folder_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept = Loop(every_s=0)
    walk(kept, 10)
    assert list(tmp_path.rglob("*")) == []
    assert (kept.snapshots, kept.total) == ([], 10)


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    walk(Loop(tmp_path, every_s=0), 10)
    snapshots = {f"snapshot-{step}.safetensors" for step in (0, 1, 2, 5)}
    assert files(tmp_path) == {loop.CHECKPOINT, loop.PROGRESS, *snapshots}


def test_the_loop_draws_no_random_number(tmp_path: Path, make_problem: MakeProblem) -> None:
    torch.manual_seed(987_654_321)
    np.random.seed(987_654_321)
    random.seed(987_654_321)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with pytest.raises(Killed):
        METHOD.distill(keep(dying_network(make_problem(), 3), tmp_path))
    METHOD.distill(keep(make_problem(), tmp_path))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]


def test_the_budget_is_counted_in_floats(make_problem: MakeProblem) -> None:
    problem = make_problem(ipc=3)
    assert problem.budget == 3 * 10 * 64
    assert problem.budget == METHOD.distill(problem).n_stored
