"""Shards of a sweep, in one folder and in folders of their own; who may be at work beside whom."""

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.cli import ddbench, leftovers, run_inline, stable_records, sweep_file, written

from bench.core.errors import UserError
from bench.execution import folder_lock
from bench.execution.folder_lock import ShardPlace, locked
from bench.execution.store import Store

SHARED = {"methods": ["random_real", "herding", {"name": "dm", "steps": 2}], "ipc": [1]}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "LOOK_S", 0.2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, _environment: None) -> Path:
    """The folder of a run without shards."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_inline(sweep_file(folder, **SHARED), folder / "out").code == 0
    return folder / "out"


def hidden(out: Path) -> list[Path]:
    return [path for path in leftovers(out) if not path.name.startswith(".lock-")]


def test_shards_in_one_folder_are_the_whole_run_and_each_job_is_run_once(tmp_path: Path, whole: Path) -> None:
    sweep, out = sweep_file(tmp_path, **SHARED), tmp_path / "out"
    before: dict[str, int] = {}
    for i in (2, 1, 3):
        run = run_inline(sweep, out, "--shard", f"{i}/3")
        assert (run.code, run.err) == (0, "")
        assert f"shard {i}/3: " in run.text
        assert before.items() <= written(out).items()
        before = written(out)
    assert stable_records(out) == stable_records(whole)
    assert not (out / "tables").exists(), "other shards may be at work: the report is made in the end"
    assert not (out / "shards").exists(), "without neighbours there is nothing to agree on"
    assert hidden(out) == []
    again = run_inline(sweep, out)
    assert "Every cell has its record" in again.text
    assert (out / "tables" / "summary.csv").exists()
    assert "Every cell of the shard has its record" in run_inline(sweep, out, "--shard", "2/3").text


def test_shards_in_folders_of_their_own_are_joined(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a report of all of them; by a run under results/, which takes over what is finished beside it."""
    monkeypatch.chdir(tmp_path)
    sweep = sweep_file(tmp_path, **SHARED)
    parts = [tmp_path / "results" / f"part-{i}" for i in (1, 2)]
    for i, part in enumerate(parts, 1):
        assert run_inline(sweep, part, "--shard", f"{i}/2").code == 0
    records = [stable_records(part) for part in parts]
    assert min(map(len, records)) > 0
    assert not records[0].keys() & records[1].keys()
    assert records[0] | records[1] == stable_records(whole)
    assert ddbench("report", *parts, "--out", tmp_path / "joined").code == 0
    assert (tmp_path / "joined" / "tables" / "summary.csv").exists()
    run = ddbench("run", sweep, "--executor", "inline")
    assert run.code == 0
    assert "finished jobs taken over from neighbouring folders" in run.text
    assert "Every cell has its record" in run.text
    assert stable_records(tmp_path / "results" / "tiny") == stable_records(whole)


def test_a_split_by_cost_is_made_once(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours tell what jobs cost, and tell more after each shard: the first one's split counts."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole, tmp_path / "results" / "neighbour")
    sweep = sweep_file(tmp_path, **SHARED, distill={"architectures": ["convnet-d1-w4"], "seeds": [2, 3, 4]})
    assert "shard 1/2" in ddbench("plan", sweep, "--shard", "1/2").text
    assert not (tmp_path / "results" / "tiny").exists(), "a plan writes nothing"
    assert ddbench("run", sweep, "--executor", "inline", "--shard", "1/2").code == 0
    (split,) = (tmp_path / "results" / "tiny" / "shards").iterdir()
    places = split.read_text()
    shutil.rmtree(tmp_path / "results" / "neighbour")
    assert ddbench("run", sweep, "--executor", "inline", "--shard", "2/2").code == 0
    assert split.read_text() == places
    assert len(stable_records(tmp_path / "results" / "tiny")) == 9
    for damaged in ("[", "[0]", json.dumps([7] * len(json.loads(places)))):
        split.write_text(damaged)
        run = ddbench("run", sweep, "--executor", "inline", "--shard", "2/2")
        assert (run.code, run.err.count("\n")) == (2, 1)
        assert f"{split}: no split of this sweep" in run.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--shard", "3/2"], "--shard 3/2: give I/N"),
        (["--shard", "two"], "--shard two: give I/N"),
        (["--shard", "1/2", "--fresh"], "give it without --shard"),
    ],
)
def test_a_bad_shard_is_one_line_and_leaves_nothing(words: list[str], told: str, tmp_path: Path) -> None:
    run = ddbench("run", sweep_file(tmp_path), "--out", tmp_path / "out", *words)
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert told in run.err
    assert not (tmp_path / "out").exists()


def test_a_shard_without_jobs_ends_well(tmp_path: Path) -> None:
    sweep = sweep_file(tmp_path, methods=["random_real"], ipc=[1])
    run = run_inline(sweep, tmp_path / "out", "--shard", "9/9")
    assert (run.code, run.err) == (0, "")
    assert "shard 9/9: 0 of 4 jobs" in run.text


# --- who may be at work beside whom -------------------------------------------------------------------------

ONE, TWO, OTHER = ShardPlace("abof2", "1"), ShardPlace("abof2", "2"), ShardPlace("abof12", "1")


@pytest.mark.parametrize(
    ("first", "second", "beside"),
    [
        (None, None, False),
        (None, ONE, False),
        (ONE, None, False),
        (ONE, TWO, True),
        (ONE, ONE, False),
        (ONE, OTHER, False),
    ],
)
def test_only_other_shards_of_the_same_split_are_at_work_in_one_folder(
    first: ShardPlace | None, second: ShardPlace | None, beside: bool, tmp_path: Path
) -> None:
    with locked(tmp_path / "out", first):
        refused = contextlib.nullcontext() if beside else pytest.raises(UserError, match="is at work in")
        with refused, locked(tmp_path / "out", second):
            pass
    with locked(tmp_path / "out", second):  # nobody holds any lock now
        pass
    assert not (tmp_path / "out").exists() or {p.name[:5] for p in (tmp_path / "out").iterdir()} == {".lock"}


@pytest.mark.parametrize("words", [(), ("--shard", "2/3"), ("--shard", "1/2")])
def test_a_run_that_may_not_is_refused_in_one_line(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the first of two shards: the whole sweep, a shard of another split, the same shard."""
    sweep, out = sweep_file(tmp_path, methods=["random_real"], ipc=[1]), tmp_path / "out"
    opened: list[Callable[[], object]] = []
    monkeypatch.setattr(Store, "sweep_up", lambda self, keys=None: opened.pop()() if opened else None)
    ended = []
    opened.append(lambda: ended.append(ddbench("run", sweep, "--out", out, "--executor", "inline", *words)))
    assert run_inline(sweep, out, "--shard", "1/2").code == 0
    (run,) = ended
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert f"is at work in {out}" in run.err


def test_a_shard_leaves_the_checkpoints_of_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for key in ("mine", "other"):
        store.checkpoint(key).mkdir(parents=True)
        (store.checkpoint(key) / "progress.json").write_text("{}")
    store.sweep_up({"mine"})
    assert [path.name for path in store.checkpoints.iterdir()] == ["other"]
    store.sweep_up()
    assert not store.checkpoints.exists()
