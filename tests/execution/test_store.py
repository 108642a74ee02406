"""The store and its records: whole or not there, checked before use, made again or taken over."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.record import make
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.core.errors import UserError
from bench.core.io import temporary, write_atomic
from bench.execution.session import Session
from bench.execution.store import Store
from bench.planning.graph import Job
from bench.records.schema import Record, content_digest, dump_record, load_record

KEY = "0123456789abcdef"
DEAD = 2**22 + 1  # above Linux's largest process number


def fill(folder: Path) -> None:
    (folder / "data.bin").write_bytes(bytes(range(256)))
    (folder / "more.txt").write_text("more")


@pytest.fixture
def shelf(tmp_path: Path) -> Store:
    shelf = Store(tmp_path / "here")
    shelf.publish(KEY, {"kind": "distill", "label": "x", "versions": {"sources": "s"}}, fill)
    return shelf


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def one_record(**changes: Any) -> Record:
    fields: dict[str, Any] = {"accuracies": [0.5, 0.625], "eval_arch": "mlp", "hyperparameters": {"lr": 1.0}}
    fields |= {"cost": {"prepare_s": 0.1, "evaluate_s": 3.25}, "versions": {"torch": "2"}}
    return make(**fields | changes).model_copy(update={"key": KEY})


# --- artifacts ------------------------------------------------------------------------------------


def test_what_is_published_is_whole(shelf: Store) -> None:
    shelf.verify(KEY)
    assert shelf.state("distill", KEY) is None
    assert shelf.state("distill", "f" * 16) == ""
    assert files(shelf.artifact(KEY)).keys() == {"data.bin", "meta.json", "more.txt"}
    meta = shelf.meta(KEY)
    assert (meta["schema"], meta["kind"], meta["label"]) == (1, "distill", "x")
    assert meta["files"].keys() == {"data.bin", "more.txt"}
    assert [p.name for p in shelf.artifacts.iterdir()] == [KEY]


def test_publishing_again_changes_nothing(shelf: Store) -> None:
    before = files(shelf.root)
    shelf.publish(KEY, {"label": "other"}, lambda folder: (folder / "other").touch())
    assert files(shelf.root) == before
    assert [p.name for p in shelf.artifacts.iterdir()] == [KEY]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_failed_writing_leaves_nothing(shelf: Store, error: BaseException) -> None:
    before = files(shelf.root)

    def fail(folder: Path) -> None:
        fill(folder)
        raise error

    with pytest.raises(type(error)):
        shelf.publish("f" * 16, {}, fail)
    assert files(shelf.root) == before
    assert [p.name for p in shelf.artifacts.iterdir()] == [KEY]


@pytest.mark.parametrize("position", [0, 100, 255])
def test_a_flipped_byte_is_noticed(shelf: Store, position: int) -> None:
    path = shelf.artifact(KEY) / "data.bin"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    assert shelf.state("distill", KEY) == f"artifacts/{KEY} does not match the checksum of data.bin"


def test_other_damage_is_noticed(shelf: Store) -> None:
    data, meta = shelf.artifact(KEY) / "data.bin", shelf.artifact(KEY) / "meta.json"
    whole, text = data.read_bytes(), meta.read_text()
    data.write_bytes(whole[:-1])
    assert "checksum of data.bin" in str(shelf.state("distill", KEY))
    data.unlink()
    assert str(shelf.state("distill", KEY)).endswith("lacks data.bin")
    data.write_bytes(whole)
    for bad in ("", "{", "[]", "5", "null", "{}", '{"schema": 1}', text[: len(text) // 2]):
        meta.write_text(bad)
        assert str(shelf.state("distill", KEY)).endswith("has no readable meta.json")
    meta.write_text(text.replace('"schema": 1', '"schema": 2'))
    assert str(shelf.state("distill", KEY)).endswith("has store schema 2, this ddbench writes 1")
    meta.unlink()
    assert str(shelf.state("distill", KEY)).endswith("has no readable meta.json")
    shelf.discard("distill", KEY)
    assert shelf.state("distill", KEY) == ""
    shelf.publish(KEY, {}, fill)
    shelf.verify(KEY)


def test_a_changed_cost_is_noticed(shelf: Store) -> None:
    """Records copy their artifact's cost, so meta.json has a checksum of its own."""
    shelf.publish("priced", {"cost": {"distill_s": 12.5}}, fill)
    path = shelf.artifact("priced") / "meta.json"
    path.write_text(path.read_text().replace("12.5", "1.25"))
    with pytest.raises(ValueError, match=r"checksum of meta\.json"):
        shelf.verify("priced")


def test_find_by_the_first_characters(shelf: Store) -> None:
    shelf.publish("0123ffffffffffff", {}, fill)
    assert shelf.find("01234") == shelf.find(KEY) == KEY
    for prefix, what in (
        ("0123", "several artifacts begin"),
        ("", "several artifacts begin"),
        ("f", "no artifact begins"),
        ("*4", "no artifact begins"),
        ("/", "no artifact begins"),
        ("../artifacts/01234", "no artifact begins"),
    ):
        with pytest.raises(UserError, match=what):
            shelf.find(prefix)
    with pytest.raises(UserError, match="no artifact begins"):
        Store(shelf.root / "nowhere").find("0")


# --- files written whole --------------------------------------------------------------------------


def test_a_text_file_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "file.txt"
    write_atomic(path, "one")
    write_atomic(path, "two")
    assert files(tmp_path) == {"new/file.txt": b"two"}
    assert path.stat().st_mode & 0o777 == 0o644

    def fail(*_: object) -> None:
        raise OSError("disk full")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, fail)
            with pytest.raises(OSError, match="disk full"):
                write_atomic(path, "three")
        assert files(tmp_path) == {"new/file.txt": b"two"}


def leftover(folder: Path, pid: int, host: str | None = None, is_folder: bool = False) -> Path:
    """What a process of this or another machine left half-written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid)
        if host is not None:
            patch.setattr(socket, "gethostname", lambda: host)
        name = temporary(KEY)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if is_folder:
        path.mkdir()
        (path / "data.bin").touch()
    else:
        path.touch()
    return path


def test_only_the_leavings_of_the_dead_are_swept_up(shelf: Store) -> None:
    folders = (shelf.artifacts, shelf.records, shelf.root, shelf.logs)
    dead = [
        leftover(f, DEAD, is_folder=kind) for f, kind in zip(folders, (True, False, True, False), strict=True)
    ]
    alive = [leftover(f, os.getpid()) for f in folders]
    this = socket.gethostname()
    elsewhere = [
        leftover(shelf.artifacts, DEAD, host) for host in ("x" + this, this + f"-{DEAD}", this + "-a")
    ]
    old = leftover(shelf.artifacts, DEAD, "z", is_folder=True)
    yesterday = time.time() - 2 * 86400
    os.utime(old, (yesterday, yesterday))
    shelf.sweep_up()
    assert not any(path.exists() for path in [*dead, old])
    assert all(path.exists() for path in alive + elsewhere)
    shelf.verify(KEY)


# --- taking over ----------------------------------------------------------------------------------


def lender(stores: list[Store], kind: str) -> Store | None:
    """Which of these result folders a run would take the job from, where its sources are "s" today."""
    job = Job(kind, KEY, "label", {"dataset": "print"}, {})
    datasets = {"print": {"label": one_record().dataset}}
    nothing: Any = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.execution.session.planned_sources", lambda job, jobs: {"sources": "s"})
        return Session(nothing, {KEY: job}, Store(Path("here")), stores, datasets).lender(KEY)


def test_a_whole_artifact_is_taken_over(shelf: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "there")
    assert lender([Store(tmp_path / "nowhere"), shelf], "distill") is shelf
    other.adopt("distill", KEY, shelf)
    assert files(other.artifact(KEY)) == files(shelf.artifact(KEY))
    other.verify(KEY)


def test_damaged_work_is_not_taken_over(shelf: Store, tmp_path: Path) -> None:
    whole, other = Store(tmp_path / "whole"), Store(tmp_path / "other")
    (shelf.artifact(KEY) / "data.bin").write_bytes(b"")
    write_atomic(shelf.record(KEY), dump_record(one_record()).replace("0.625", "0.75"))
    whole.publish(KEY, {"versions": {"sources": "s"}}, fill)
    lent = one_record(versions={"sources": "s"})
    write_atomic(whole.record(KEY), dump_record(lent))
    for kind in ("distill", "evaluate"):
        assert lender([shelf], kind) is None
        assert lender([shelf, whole], kind) is whole
        other.adopt(kind, KEY, whole)
        assert other.state(kind, KEY) is None
    assert other.load_record(KEY) == lent


@pytest.mark.parametrize("versions", [{"sources": "t"}, {"torch": "2"}], ids=["other", "unknown"])
def test_only_what_the_sources_of_today_made_is_taken_over(tmp_path: Path, versions: dict[str, str]) -> None:
    there = Store(tmp_path / "there")
    there.publish(KEY, {"versions": versions}, fill)
    write_atomic(there.record(KEY), dump_record(one_record(versions=versions)))
    assert lender([there], "distill") is None
    assert lender([there], "evaluate") is None


# --- records --------------------------------------------------------------------------------------

FRACTIONS = st.floats(0, 1, allow_nan=False)


@given(accuracies=st.lists(FRACTIONS, min_size=1), ipc=st.none() | st.integers(1), text=st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_records_read_back_exactly(
    tmp_path: Path, accuracies: list[float], ipc: int | None, text: str
) -> None:
    written = one_record(accuracies=accuracies, ipc=ipc, hyperparameters={"text": text, "n": [1, 2.5]})
    path = tmp_path / f"{KEY}.json"
    write_atomic(path, dump_record(written))
    assert load_record(path) == written


def why(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    with pytest.raises(ValueError, match=r"^(is|has|does|holds|was) ") as caught:
        load_record(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_changed_digit_anywhere_is_noticed(tmp_path: Path) -> None:
    """Every number of the record, one at a time, with the file's other text kept."""
    path, text = tmp_path / f"{KEY}.json", dump_record(one_record())
    end = text.index('"sha256"')
    start = text.index('"artifact"')
    digits = [i for i in range(start, end) if text[i].isdigit()]
    assert len(digits) > 30
    for i in digits:
        changed = text[:i] + str((int(text[i]) + 1) % 10) + text[i + 1 :]
        assert why(path, changed).startswith(("does not match its checksum", "does not fit schema 2"))


def test_records_that_do_not_count(tmp_path: Path) -> None:
    path, text = tmp_path / f"{KEY}.json", dump_record(one_record())
    for bad in ("", "{", text[:-20]):
        assert why(path, bad) == "is not readable as JSON"
    for bad in ("[]", "5", "null", '"text"', "{}"):
        assert why(path, bad) == "has no checksum"
    assert "does not fit schema 2: schema_version" in why(
        path, text.replace('_version": 2', '_version": 3', 1)
    )
    older = why(path, text.replace('_version": 2', '_version": 1', 1))
    assert older == "was written by an older schema (1, now 2)"
    assert "does not fit schema 2: extra" in why(path, text.replace("{", '{"extra": 1,', 1))
    assert "does not fit schema 2: seed" in why(path, text.replace('"seed": 0,', ""))
    assert why(tmp_path / "other.json", text) == f"holds the record {KEY}"
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match="is not readable as JSON"):
        load_record(path)
    with pytest.raises(ValueError, match="is not readable as JSON"):
        load_record(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    "field",
    [
        "metrics", "metrics.diverged", "metrics.curve", "metrics.snapshots", "training",
        "storage.teacher_bytes", "cost.prerequisites_s", "cost.teacher_s", "cost.distill_s",
        "cost.bookkeeping_s", "cost.tune_s", "cost.cold",
    ],
)  # fmt: skip
def test_a_record_that_lacks_a_field_is_no_record(tmp_path: Path, field: str) -> None:
    content = one_record().model_dump(mode="json")
    *within, name = field.split(".")
    del (content[within[0]] if within else content)[name]
    path = tmp_path / f"{KEY}.json"
    path.write_text(json.dumps(content | {"sha256": content_digest(content)}))
    with pytest.raises(ValueError, match=f"does not fit schema 2: {field}: Field required"):
        load_record(path)


@pytest.mark.parametrize("accuracies", [[], [-0.1], [1.5], [float("nan")], [0.5, 63.0]])
def test_accuracies_are_fractions(accuracies: list[float]) -> None:
    with pytest.raises(ValidationError, match="accuracies"):
        one_record(accuracies=accuracies)


def test_the_state_of_a_record(shelf: Store) -> None:
    assert shelf.state("evaluate", KEY) == ""
    write_atomic(shelf.record(KEY), dump_record(one_record()))
    assert shelf.state("evaluate", KEY) is None
    content = json.loads(shelf.record(KEY).read_text())
    assert list(content)[-1] == "sha256"
    shelf.record(KEY).write_text("{")
    assert shelf.state("evaluate", KEY) == f"records/{KEY}.json is not readable as JSON"
    shelf.discard("evaluate", KEY)
    assert shelf.state("evaluate", KEY) == ""
    assert shelf.state("distill", KEY) is None
