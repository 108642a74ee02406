"""Jobs of a node that does not see the result folder: what it gets, what it sends back, what it keeps."""

import json
import os
import shutil
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import leftovers, run_inline, stable_records, sweep_file, use_plugins, written

from bench.core import registry
from bench.core.loop import CHECKPOINT, PROGRESS, StepReport, read_step_report, write_step_report
from bench.data.cache import read_dataset
from bench.execution import folder_server, inline, remote_job
from bench.execution.folder_server import FolderServer
from bench.execution.remote_job import Home, _Mirror, run_remote_job
from bench.execution.store import Store

ELSEWHERE = "/of/another/machine"  # what this machine's folder is called on the node, which does not have it


class OtherMachine(FolderServer):
    """The server of a folder that the node, which is this process, sees at none of the server's paths."""

    def __init__(self, here: Path, out: Path) -> None:
        (scratch := out / ".scratch").mkdir(parents=True)
        super().__init__(str(out), str(scratch))
        self.here, self.reads = here, Counter[str]()
        self.damage: Callable[[str, bytes], bytes] = lambda name, piece: piece

    def _path(self, path: str) -> str:
        assert path.startswith(ELSEWHERE), f"{path} is no path of the other machine"
        return str(self.here) + path.removeprefix(ELSEWHERE)

    def names(self, folder: str) -> list[str]:
        return super().names(self._path(folder))

    def read(self, path: str, offset: int) -> bytes:
        self.reads[Path(path).name if "datasets" in path else path] += offset == 0
        return self.damage(path, super().read(self._path(path), offset))

    def write(self, arrival: str, name: str, offset: int, piece: bytes) -> None:
        super().write(arrival, name, offset, self.damage(name, piece))


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OtherMachine:
    """From now on inline runs into the folder `out` do each job as a node that sees none of their files."""
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    server = OtherMachine(tmp_path, tmp_path / "out")

    def run_job(job: Any, context: Any) -> dict[str, Any]:
        def there(path: str) -> str:
            return path.replace(str(tmp_path), ELSEWHERE)

        datasets = {k: {**entry, "path": there(entry["path"])} for k, entry in context.datasets.items()}
        moved = remote_job.dataclasses.replace(context, root=there(context.root), datasets=datasets)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DDBENCH_CACHE", str(tmp_path / "node"))
            return run_remote_job(job, moved, server, tmp_path / "node/folder")

    monkeypatch.setattr(inline, "run_job", run_job)
    return server


SWEEP: dict[str, Any] = {
    "methods": ["random_real", {"name": "dm", "steps": 2}, "herding"],
    "ipc": [1],
    "distill": {"architectures": ["convnet-d1-w4"], "seeds": [0]},
    "evaluate": {"architectures": ["mlp"], "students": 1, "protocol": "quick", "snapshots": True},
}


def finish(out: Path) -> None:
    shutil.rmtree(out / ".scratch")


def test_a_node_that_sees_nothing_makes_the_same_and_gets_each_file_once(
    other: OtherMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_server, "PIECE", 5000)  # smaller than the files
    monkeypatch.setattr(remote_job, "PIECE", 5000)
    out, sweep = tmp_path / "out", sweep_file(tmp_path, **SWEEP)
    run = run_inline(sweep, out)
    assert (run.code, run.err) == (0, "")
    finish(out)
    assert leftovers(out) == []
    assert not (out / "checkpoints").exists()
    assert not (out / "logs").exists() or not any((out / "logs").iterdir())
    sent = {name: n for name, n in other.reads.items() if not name.endswith("meta.json")}
    assert set(sent.values()) == {1}
    assert sum("digits" in name for name in sent) == 1
    (data,) = (tmp_path / "node/datasets").glob("*.safetensors")
    assert data.stem == read_dataset(data).fingerprint
    here = {name: content(out / name) for name in written(out, "artifacts")}
    assert here == {name: content(tmp_path / "node/folder" / name) for name in here}
    assert not any((tmp_path / "node/folder/records").iterdir())
    monkeypatch.undo()
    assert run_inline(sweep, tmp_path / "alone").code == 0
    assert stable_records(out) == stable_records(tmp_path / "alone")
    tensors = {name for name in here if name.endswith("safetensors")}
    assert all(here[name] == content(tmp_path / "alone" / name) for name in tensors)


def content(path: Path) -> bytes:
    return path.read_bytes()


@pytest.mark.parametrize("where", ["datasets/", "data.safetensors", "meta.json"])  # there, and two back
def test_what_arrives_damaged_fails_the_job_in_a_line_and_is_not_published(
    where: str, other: OtherMachine, tmp_path: Path
) -> None:
    other.damage = lambda name, piece: piece[:-9] + b"damaged!!"[: len(piece)] if where in name else piece
    out = tmp_path / "out"
    run = run_inline(sweep_file(tmp_path, **SWEEP | {"methods": ["random_real"]}), out)
    assert run.code == 1
    told = (
        f"failed: random_real digits ipc 1 seed 0: on {socket.gethostname()}, which does not see the result "
    )
    assert told in run.text, run.text
    (log,) = (out / "logs").iterdir()
    assert "Traceback" in log.read_text()
    finish(out)
    assert leftovers(out) == []
    assert written(out) == {}
    assert [path.name for path in leftovers(tmp_path / "node")] in ([], [".lock"])


def test_a_job_that_fails_sends_its_log_and_a_later_success_removes_it(
    other: OtherMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_plugins(tmp_path / "site", monkeypatch)
    out, sweep = tmp_path / "out", sweep_file(tmp_path, **SWEEP | {"methods": [{"name": "fails", "ipc": 1}]})
    run = run_inline(sweep, out)
    assert (run.code, run.text.count("AssertionError: cannot do ipc 1")) == (1, 2)
    (log,) = (out / "logs").iterdir()
    assert "Traceback" in log.read_text()
    assert str(log) in run.text
    monkeypatch.setenv("MENDED", "1")
    (out / ".scratch").mkdir(exist_ok=True)
    assert run_inline(sweep, out).code == 0
    assert not any((out / "logs").iterdir())


def test_what_the_node_made_in_an_earlier_run_is_made_again_when_it_is_asked_for(
    other: OtherMachine, tmp_path: Path
) -> None:
    out, sweep = tmp_path / "out", sweep_file(tmp_path, **SWEEP | {"methods": ["random_real"]})
    assert run_inline(sweep, out).code == 0
    first = written(tmp_path / "node/folder", "artifacts")
    for folder in ("artifacts", "records"):
        shutil.rmtree(out / folder)
    (out / ".scratch").mkdir(exist_ok=True)
    assert run_inline(sweep, out).code == 0
    assert not first.items() & written(tmp_path / "node/folder", "artifacts").items()
    assert len(stable_records(out)) == 1


def test_a_disk_that_is_full_at_home_is_told_in_a_line(
    other: OtherMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: object) -> None:
        raise remote_job.UserError("out: cannot be written: No space left on device; make room")

    monkeypatch.setattr(other, "publish", full)
    monkeypatch.setattr(other, "keep_log", full)
    run = run_inline(sweep_file(tmp_path, **SWEEP | {"methods": ["random_real"]}), tmp_path / "out")
    assert run.code == 1
    assert "see the result folder: out: cannot be written: No space left on device; make room" in run.text
    assert "Traceback" not in run.out + run.err


# --- checkpoints --------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(tmp_path: Path) -> tuple[_Mirror, Store]:
    (tmp_path / "out/.scratch").mkdir(parents=True)
    server = FolderServer(str(tmp_path / "out"), str(tmp_path / "out/.scratch"))
    there = Store(tmp_path / "node")
    there.checkpoint("k").mkdir(parents=True)
    return _Mirror("k", server, there, "arrival"), server.store


def test_checkpoints_and_reports_of_a_running_job_are_sent_when_they_change(
    mirror: tuple[_Mirror, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, home = mirror
    write_step_report(sender.folder, StepReport(3, 10, 0.5, 2.0, 3.5))
    (sender.folder / "snapshot-1").write_bytes(b"")
    (sender.folder / CHECKPOINT).write_bytes(b"after three")
    (sender.folder / ".tmp-unfinished").mkdir()
    sent: list[str] = []
    keep = sender.home.keep_checkpoint
    monkeypatch.setattr(
        sender.home, "keep_checkpoint", lambda *words: (sent.append(words[2]), keep(*words))[1]
    )
    sender.send_changed()
    assert sent == [PROGRESS, "snapshot-1", CHECKPOINT]
    assert read_step_report(home.checkpoint("k")) == StepReport(3, 10, 0.5, 2.0, 3.5)
    assert (home.checkpoint("k") / CHECKPOINT).read_bytes() == b"after three"
    assert (home.checkpoint("k") / "snapshot-1").read_bytes() == b""
    write_step_report(sender.folder, StepReport(4, 10, 0.5, 2.0, 3.0))
    sender.send_changed()
    assert sent[3:] == [PROGRESS]
    shutil.rmtree(sender.folder)  # as after a divergence: from there it would diverge again
    sender.end()
    assert not home.checkpoint("k").exists()


def test_reports_are_sent_while_the_job_runs(
    mirror: tuple[_Mirror, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_job, "MIRROR_S", 0.01)
    sender, home = mirror
    with sender.sending():
        write_step_report(sender.folder, StepReport(3, 10, None, 2.0, 3.5))
        limit = 500
        while read_step_report(home.checkpoint("k")) is None and limit:
            limit -= remote_job.threading.Event().wait(0.01) or 1
    assert read_step_report(home.checkpoint("k")) is not None


def test_a_server_that_does_not_answer_for_once_does_not_end_the_job(
    mirror: tuple[_Mirror, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_job, "MIRROR_S", 0.001)
    sender, _ = mirror
    asked = remote_job.threading.Event()

    def silent(*words: object) -> None:
        asked.set()
        raise RuntimeError("of another library")

    monkeypatch.setattr(sender.home, "write", silent)
    (sender.folder / CHECKPOINT).write_bytes(b"x")
    with sender.sending():
        assert asked.wait(10)


def test_a_node_goes_on_from_the_checkpoint_of_another_and_not_from_its_own_older_one(
    mirror: tuple[_Mirror, Store], tmp_path: Path
) -> None:
    sender, home = mirror
    (sender.folder / "older").write_bytes(b"")
    home.checkpoint("k").mkdir(parents=True)
    for name in (CHECKPOINT, PROGRESS, "sources.json"):
        (home.checkpoint("k") / name).write_text(name)
    remote_job._fetch_checkpoint("k", home.checkpoint("k"), sender.home, Store(tmp_path / "node"))
    assert sorted(p.name for p in sender.folder.iterdir()) == [CHECKPOINT, "sources.json"]
    assert (sender.folder / CHECKPOINT).read_text() == CHECKPOINT


# --- what a node sees ---------------------------------------------------------------------------------------


def test_a_folder_is_seen_by_its_mark_and_not_by_its_path(tmp_path: Path) -> None:
    home = Home.of("/out", tmp_path)
    assert home.is_seen()
    again = Home.of("/out", tmp_path)  # of the same path on the same machine, in another run
    assert again.is_seen()
    assert not home.is_seen()
    assert again.cache == home.cache, "what was sent once is found by the next run"
    assert Home.of("/other", tmp_path).cache != home.cache
    (tmp_path / "mark").unlink()
    assert not again.is_seen()


def test_ray_that_does_not_see_the_folder_of_its_own_machine_is_told_in_a_line(tmp_path: Path) -> None:
    home = Home.of("/out", tmp_path)
    server = FolderServer("/out", str(tmp_path / "missing"))
    (tmp_path / "mark").unlink()
    found = remote_job.run_trial_at("t", "n", None, home, server)  # type: ignore[arg-type]
    assert found["ok"] is False
    assert found["error"].startswith("Ray on the machine of this command does not see /out")


@pytest.mark.parametrize("name", ["../x", "/etc/x", "..", "a/b"])
def test_no_name_that_arrives_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    server = FolderServer(str(tmp_path / "out"), str(tmp_path / "scratch"))
    for call in (
        lambda: server.write(name, "x", 0, b""),
        lambda: server.write("x", name, 0, b""),
        lambda: server.drop_checkpoint(name),
        lambda: server.keep_log(name, "x"),
    ):
        with pytest.raises(ValueError, match="is no plain name"):
            call()


def test_a_plugin_file_goes_to_the_node_and_is_found_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(registry.PLUGINS, os.pathsep.join(["/there/mine.py", "/there/yours.py"]))
    source = "from methods.random_real import METHOD\n"
    asked: list[str] = []

    def read(path: str) -> bytes:
        asked.append(path)
        return source.encode()

    for _ in range(2):  # once per process
        registry.fetch_plugins(read, tmp_path)
    assert asked == ["/there/mine.py", "/there/yours.py"]
    assert registry.method_class("mine").__name__ == "RandomReal"
    assert registry.method_class("yours").__name__ == "RandomReal"
    assert Path(registry.method_source("mine")).read_text() == source


def test_a_record_that_is_another_job_s_is_not_published(tmp_path: Path) -> None:
    (tmp_path / "k.json").write_text(json.dumps({"key": "other"}))
    with pytest.raises(ValueError, match="has no checksum"):
        Store(tmp_path / "out").receive("evaluate", "k", tmp_path)
    assert not (tmp_path / "out").exists()
