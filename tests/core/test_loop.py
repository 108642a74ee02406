"""The loop: a resumed distillation is the undisturbed one, and what it tells on the way."""

import dataclasses
import hashlib
import io
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeProblem
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.core import loop
from bench.core import random as rng
from bench.core.distilled import DistilledDataset, load_distilled
from bench.core.loop import Diverged, Loop, StepReport, Steps, read_step_report
from bench.core.method import Problem
from bench.core.preprocess import Preprocess
from methods.blocks.parameterise.pixels import Pixels
from methods.dm import DM

METHOD = DM(steps=5, batch_real=8)


class Killed(BaseException):
    """What ends a process, for these tests."""


def pixels(value: float = 0.0) -> Pixels:
    return Pixels(torch.full((2, 1, 2, 2), value), [1, 1], Preprocess((0.5,), (0.25,)))


def walk(
    kept: Loop, total: int, *, kill: int | None = None, losses: dict[int, float] | None = None
) -> tuple[Pixels, list[int]]:
    """Adam on noise: what each step does depends on all before it. Killed in the middle of step `kill`."""
    synthetic, noise, seen = pixels(), rng.generator(0, "noise"), []
    optimiser = torch.optim.Adam([synthetic.images], lr=0.1)
    run = kept.steps(total, synthetic, "lr", optimiser=optimiser, noise=noise)
    for step in run:
        seen.append(step)
        optimiser.zero_grad()
        (synthetic.images - torch.randn(2, 1, 2, 2, generator=noise)).square().sum().backward()
        if step == kill:
            raise Killed
        optimiser.step()
        run.loss(torch.tensor((losses or {}).get(step, float(step)), dtype=torch.float64))
    return synthetic, seen


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


# --- resuming ---------------------------------------------------------------------------------------------


@given(total=st.integers(1, 6), kills=st.lists(st.integers(0, 5), max_size=4))
@settings(max_examples=30)
def test_however_often_it_is_killed_the_steps_are_the_same(total: int, kills: list[int]) -> None:
    undisturbed, every = walk(Loop(), total)
    assert every == list(range(total))
    with tempfile.TemporaryDirectory() as name:
        done = 0
        for kill in kills:
            if not done <= kill < total:
                continue
            with pytest.raises(Killed):
                walk(Loop(Path(name), every_s=0), total, kill=kill)
            done = kill
        resumed, rest = walk(Loop(Path(name), every_s=0), total)
    assert rest == list(range(done, total))
    assert torch.equal(resumed.images, undisturbed.images)


@pytest.fixture(scope="module")
def undisturbed(make_problem: MakeProblem) -> Tensor:
    return METHOD.distill(make_problem(ipc=2)).images.detach()


def dying_network(problem: Problem, step: int) -> Problem:
    """A problem whose network of this step, counted in this process, is the process's last."""
    made = 0

    def make_net(generator: torch.Generator) -> Any:
        nonlocal made
        made += 1
        if made > step:
            raise Killed
        return problem.make_net(generator)

    return dataclasses.replace(problem, make_net=make_net)


def keep(problem: Problem, folder: Path) -> Problem:
    return dataclasses.replace(problem, loop=Loop(folder, every_s=0))


@pytest.mark.parametrize("step", range(METHOD.steps))
@pytest.mark.parametrize("where", ["at the beginning", "after the optimiser"])
def test_dm_killed_in_any_step_ends_as_the_undisturbed_run(
    where: str,
    step: int,
    undisturbed: Tensor,
    make_problem: MakeProblem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = make_problem(ipc=2)
    if where == "at the beginning":
        with pytest.raises(Killed):
            METHOD.distill(keep(dying_network(problem, step), tmp_path))
    else:
        note: Callable[[Steps, Tensor], None] = Steps.loss

        def loss(run: Steps, value: Tensor) -> None:
            note(run, value)
            if run._losses[-1][0] == step + 1:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Steps, "loss", loss)
            with pytest.raises(Killed):
                METHOD.distill(keep(problem, tmp_path))
    rest = METHOD.steps - step
    assert torch.equal(METHOD.distill(keep(dying_network(problem, rest), tmp_path)).images, undisturbed)


def test_a_finished_loop_has_nothing_left_to_do(tmp_path: Path) -> None:
    first, _ = walk(Loop(tmp_path, every_s=0), 4)
    second, rest = walk(Loop(tmp_path, every_s=0), 4)
    assert rest == []
    assert torch.equal(first.images, second.images)


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def _rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A whole checkpoint of something else."""
    found = torch.load(io.BytesIO(path.read_bytes()[32:]), weights_only=True)
    change(found)
    torch.save(found, buffer := io.BytesIO())
    path.write_bytes(hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[:500]),
    "a flipped bit in the middle": lambda path: _flip(path, path.stat().st_size // 2),
    "a flipped bit in the digest": lambda path: _flip(path, 0),
    "a snapshot is gone": lambda path: (path.parent / "snapshot-1.safetensors").unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "other shapes": lambda path: _rewrite(
        path, lambda found: found["state"]["synthetic"].update(images=torch.ones(3, 1, 2, 2))
    ),
    "another optimiser": lambda path: _rewrite(
        path, lambda found: found["state"]["optimiser"].update(param_groups=[])
    ),
    "another generator": lambda path: _rewrite(
        path, lambda found: found["state"].update(noise=torch.zeros(3, dtype=torch.uint8))
    ),
    "other names": lambda path: _rewrite(path, lambda found: found["state"].update(more={})),
    "less": lambda path: _rewrite(path, lambda found: found.pop("state")),
    "another number of steps": lambda path: _rewrite(path, lambda found: found.update(total=7)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_checkpoint_that_is_damaged_or_does_not_fit_is_ignored(damage: str, tmp_path: Path) -> None:
    undisturbed, _ = walk(Loop(), 6)
    with pytest.raises(Killed):
        walk(Loop(tmp_path, every_s=0), 6, kill=4)
    DAMAGE[damage](tmp_path / loop.CHECKPOINT)
    kept = Loop(tmp_path, every_s=1000)
    again, steps = walk(kept, 6)
    assert steps == list(range(6))
    assert torch.equal(again.images, undisturbed.images)
    assert [taken["step"] for taken in kept.snapshots] == [0, 1, 3]
    assert kept.earlier_s == 0


def test_a_checkpoint_comes_when_it_is_time_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: clock))
    kept = Loop(tmp_path, every_s=30)
    written = []
    for step in kept.steps(10, pixels(), "lr"):
        written.append((tmp_path / loop.CHECKPOINT).exists())
        (tmp_path / loop.CHECKPOINT).unlink(missing_ok=True)
        clock += 16 if step < 5 else 40
    assert written == [False, False, True, False, True, False, True, True, True, True]


def test_seconds_go_on_where_the_checkpoint_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the killed process did after its checkpoint is lost, and no beginning is counted twice."""
    clock = 100.0
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: clock))

    def distill(kill: int | None) -> Loop:
        nonlocal clock
        kept = Loop(tmp_path, every_s=20)
        clock += 3  # until the first step
        for step in kept.steps(10, pixels(), "lr"):
            clock += 10
            if step == kill:
                raise Killed
        return kept

    with pytest.raises(Killed):
        distill(kill=4)
    clock += 1e6
    kept = distill(kill=None)
    assert kept.seconds == 3 + 10 * 10
    assert [taken["seconds"] for taken in kept.snapshots] == [3, 13, 23, 53]


WRITE_S = 0.5


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still unless a test moves it or a report, snapshot or checkpoint is written."""
    clock = SimpleNamespace(now=100.0, writes=0)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def slow(write: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any) -> None:
            write(*args)
            clock.now += WRITE_S
            clock.writes += 1

        return call

    for name in ("_report", "_snapshot", "_keep"):
        monkeypatch.setattr(Steps, name, slow(getattr(Steps, name)))
    return clock


def test_bookkeeping_is_no_part_of_the_seconds(tmp_path: Path, slow_disk: SimpleNamespace) -> None:
    kept = Loop(tmp_path, every_s=0)
    for _ in kept.steps(10, pixels(), "lr"):
        slow_disk.now += 3
    assert kept.seconds == 30
    assert slow_disk.writes > 20
    assert kept.bookkeeping_s == WRITE_S * slow_disk.writes
    assert kept.method_seconds(30 + kept.bookkeeping_s) == 30
    assert [taken["seconds"] for taken in kept.snapshots] == [0, 3, 6, 15]


def test_bookkeeping_goes_on_where_the_checkpoint_was_written(
    tmp_path: Path, slow_disk: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the writing of the last checkpoint, which it cannot hold; reading it is bookkeeping too."""
    read = loop._read_checkpoint

    def slow_read(folder: Path) -> dict[str, Any]:
        slow_disk.now += 7
        return read(folder)

    monkeypatch.setattr(loop, "_read_checkpoint", slow_read)

    def distill(kill: int | None) -> Loop:
        kept = Loop(tmp_path, every_s=0)
        slow_disk.now += 2  # until the first step
        for step in kept.steps(10, pixels(), "lr"):
            slow_disk.now += 3
            if step == kill:
                raise Killed
        return kept

    with pytest.raises(Killed):
        distill(kill=4)
    kept = distill(kill=None)
    assert kept.seconds == 2 + 30
    assert kept.bookkeeping_s == WRITE_S * (slow_disk.writes - 1) + 7
    assert [taken["seconds"] for taken in kept.snapshots] == [2, 5, 8, 17]


def test_a_checkpoint_whose_seconds_hold_the_bookkeeping_is_ignored(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        walk(Loop(tmp_path, every_s=0), 6, kill=4)
    _rewrite(tmp_path / loop.CHECKPOINT, lambda found: found.pop("bookkeeping_s"))
    assert walk(Loop(tmp_path), 6)[1] == list(range(6))


def test_a_journal_has_one_loop(tmp_path: Path) -> None:
    kept = Loop(tmp_path)
    kept.steps(2, pixels(), "lr")
    with pytest.raises(ValueError, match="one loop"):
        kept.steps(2, pixels(), "lr")
    free = Loop()
    assert list(free.steps(2, pixels(), "lr")) == list(free.steps(2, pixels(), "lr")) == [0, 1]


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


def test_a_journal_without_a_folder_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept = Loop(every_s=0)
    walk(kept, 10)
    assert list(tmp_path.rglob("*")) == []
    assert (kept.snapshots, kept.total) == ([], 10)


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    walk(Loop(tmp_path, every_s=0), 10)
    snapshots = {f"snapshot-{step}.safetensors" for step in (0, 1, 2, 5)}
    assert files(tmp_path) == {loop.CHECKPOINT, loop.PROGRESS, *snapshots}


def test_the_journal_draws_no_random_number(tmp_path: Path, make_problem: MakeProblem) -> None:
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
