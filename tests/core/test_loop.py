"""The loop: a resumed distillation is the undisturbed one."""

import hashlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import MakeProblem
from helpers.loop import Killed, dying_network, keep, pixels, walk
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.core import loop
from bench.core.loop import Loop, Steps
from methods.dm import DM

METHOD = DM(steps=5, batch_real=8)


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


def test_a_loop_has_one_loop(tmp_path: Path) -> None:
    kept = Loop(tmp_path)
    kept.steps(2, pixels(), "lr")
    with pytest.raises(ValueError, match="one loop"):
        kept.steps(2, pixels(), "lr")
    free = Loop()
    assert list(free.steps(2, pixels(), "lr")) == list(free.steps(2, pixels(), "lr")) == [0, 1]
