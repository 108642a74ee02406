"""A job on a node that does not see the result folder: its inputs are sent there, its result is sent back.

The node keeps what it got and made in its cache, by result folder and key; data sets by fingerprint.
"""

import contextlib
import dataclasses
import hashlib
import os
import pickle
import shutil
import socket
import tempfile
import threading
import traceback
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from bench.core.errors import UserError, first_line
from bench.core.io import remove_leftovers, temporary, writing
from bench.core.loop import CHECKPOINT, PROGRESS
from bench.core.registry import fetch_plugins
from bench.data.cache import cache_dir, read_dataset, receive_dataset
from bench.execution.folder_server import PIECE, Folder, FolderServer
from bench.execution.jobs import JobContext, run_job
from bench.execution.store import Store
from bench.planning.graph import Job
from bench.records.artifact import META

MARK = "mark"
MIRROR_S = 2.0  # between two looks for what a running job has written


@dataclass(frozen=True)
class Home:
    """Where a run's results go; a node sees it where the mark lies in the scratch folder."""

    root: str
    scratch: str
    mark: str  # tells the folder from one of the same path on another machine

    @classmethod
    def of(cls, root: str, scratch: Path) -> "Home":
        """Put a mark into the scratch folder, which is one in the result folder."""
        mark = f"{socket.gethostname()}:{root}:{uuid.uuid4()}"
        (scratch / MARK).write_text(mark)
        return cls(root, str(scratch), mark)

    def is_seen(self) -> bool:
        """Whether this node sees the folder."""
        try:
            return (Path(self.scratch) / MARK).read_text() == self.mark
        except OSError:
            return False

    @property
    def cache(self) -> Path:
        """Where a node that does not see it keeps what belongs to it, from one run to the next."""
        name = self.mark.rpartition(":")[0]
        return cache_dir() / "nodes" / hashlib.sha256(name.encode()).hexdigest()[:16]


def run_trial_at(
    trial: str, node: str, context: JobContext, home: Home, server: Folder | None
) -> dict[str, Any]:
    """Run the job of a trial on this node, which may see the result folder or not, as `run_job` does."""
    if server is None or home.is_seen():
        begin, folder = FolderServer(home.root, home.scratch).begin, None
    else:
        begin, folder = server.begin, server
    try:
        found: Job | dict[str, Any] = pickle.loads(begin(trial, node))
    except FileNotFoundError:
        unseen = (
            f"Ray on the machine of this command does not see {home.root}: start it where the folder is seen"
        )
        return {"ok": False, "error": unseen, "seconds": 0.0, "fault": False}
    if isinstance(found, dict):  # what was decided on it before
        return found
    return run_remote_job(found, context, folder, home.cache) if folder else run_job(found, context)


def run_remote_job(job: Job, context: JobContext, home: Folder, cache: Path) -> dict[str, Any]:
    """Run a job whose result folder, `context.root`, only the machine of `home` sees, as `run_job` does."""
    store = Store(cache)
    for folder in (store.root, *store.root.glob("*/")):
        remove_leftovers(folder)
    try:
        if home.state(job.kind, job.key) is None:  # a try that was thought lost has ended after all
            return {"ok": True, "error": None, "seconds": 0.0, "fault": False}
        there = _fetch_inputs(job, context, home, store)
        arrival = f"{job.key}-{uuid.uuid4().hex[:8]}"
        mirror = _Mirror(job.key, home, store, f"{arrival}-checkpoint")
        with mirror.sending():
            result = run_job(job, there)
        if result["ok"]:
            _send_result(job, home, store, arrival)
        else:
            log = store.log(job.key)
            home.keep_log(job.key, log.read_text() if log.exists() else None)
            mirror.end()
    except (UserError, ValueError, OSError) as failure:
        with contextlib.suppress(UserError):
            home.keep_log(job.key, f"{job.label}\n{job.key}\n\n{traceback.format_exc()}")
        error = f"on {socket.gethostname()}, which does not see the result folder: {first_line(failure)}"
        return {"ok": False, "error": error, "seconds": 0.0, "fault": False}
    return result


# --- to the node --------------------------------------------------------------------------------------------


def _fetch_inputs(job: Job, context: JobContext, home: Folder, store: Store) -> JobContext:
    """Get all that the job reads; the context with the places where it lies here."""
    root = Path(context.root)
    fetch_plugins(lambda path: b"".join(_pieces(home, path)), store.root / "plugins")
    fingerprint = job.identity["dataset"]
    entry = context.datasets[fingerprint]
    path = _data(fingerprint, Path(entry["path"]), home)
    for key in job.inputs.values():
        _fetch_artifact(key, root / "artifacts" / key, home, store)
    store.discard(job.kind, job.key)  # of an earlier run: it may be of other sources
    _fetch_checkpoint(job.key, root / "checkpoints" / job.key, home, store)
    datasets = {**context.datasets, fingerprint: {**entry, "path": str(path)}}
    return dataclasses.replace(context, root=str(store.root), datasets=datasets)


def _data(fingerprint: str, path: Path, home: Folder) -> Path:
    """The cache file of the data set: the one in the same place on this node, or a copy."""
    with contextlib.suppress(UserError):
        if read_dataset(path).fingerprint == fingerprint:
            return path
    return receive_dataset(fingerprint, lambda target: _copy(home, str(path), target))


def _fetch_artifact(key: str, there: Path, home: Folder, store: Store) -> None:
    """Copy an artifact, unless the very same is here."""
    meta = b"".join(_pieces(home, str(there / META)))
    store.artifacts.mkdir(parents=True, exist_ok=True)
    with FileLock(store.root / ".lock"):  # other jobs here may need it too; one file travels at a time
        mine = store.artifact(key) / META
        if mine.is_file() and mine.read_bytes() == meta:
            return
        store.discard("prepare", key)
        folder = Path(tempfile.mkdtemp(dir=store.artifacts, prefix=temporary(key)))
        try:
            for name in home.names(str(there)):
                _copy(home, str(there / name), folder / name)
            store.receive("prepare", key, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _fetch_checkpoint(key: str, there: Path, home: Folder, store: Store) -> None:
    """Copy what an earlier try has left, in place of what is here."""
    folder = store.checkpoint(key)
    shutil.rmtree(folder, ignore_errors=True)
    for name in home.names(str(there)):
        if name != PROGRESS:
            folder.mkdir(parents=True, exist_ok=True)
            _copy(home, str(there / name), folder / name)


def _copy(home: Folder, path: str, target: Path) -> None:
    with writing(target), target.open("wb") as file:
        for piece in _pieces(home, path):
            file.write(piece)


def _pieces(home: Folder, path: str) -> Iterator[bytes]:
    offset = 0
    while piece := home.read(path, offset):
        yield piece
        offset += len(piece)


# --- from the node ------------------------------------------------------------------------------------------


def _send(file: BinaryIO, name: str, home: Folder, arrival: str) -> None:
    offset = 0
    while True:
        piece = file.read(PIECE)
        home.write(arrival, name, offset, piece)
        offset += len(piece)
        if len(piece) < PIECE:
            return


def _send_result(job: Job, home: Folder, store: Store, arrival: str) -> None:
    place = store.record(job.key) if job.kind == "evaluate" else store.artifact(job.key)
    for path in [place] if place.is_file() else sorted(place.iterdir()):
        with path.open("rb") as file:
            _send(file, path.name, home, arrival)
    home.publish(job.kind, job.key, arrival)
    home.keep_log(job.key, None)
    if job.kind == "evaluate":
        place.unlink(missing_ok=True)  # no job reads it


class _Mirror:
    """Sends the files of a checkpoint when they have changed, and with them the reports of progress."""

    def __init__(self, key: str, home: Folder, store: Store, arrival: str) -> None:
        self.key, self.home, self.folder, self.arrival = key, home, store.checkpoint(key), arrival
        self.sent: dict[str, tuple[int, int]] = {}

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Send while the block runs, so that any node can go on with the job."""
        ended = threading.Event()

        def send() -> None:
            while not ended.wait(MIRROR_S):
                with contextlib.suppress(Exception):  # the job does not end for it: the next one may arrive
                    self.send_changed()

        sender = threading.Thread(target=send, name="checkpoints", daemon=True)
        sender.start()
        try:
            yield
        finally:
            ended.set()
            sender.join()

    def send_changed(self) -> None:
        """The checkpoint goes last, and is opened first: what it names is there before it."""
        with contextlib.ExitStack() as opened:
            files: dict[str, BinaryIO] = {}
            for name in (CHECKPOINT, *sorted(p.name for p in self.folder.glob("[!.]*"))):
                with contextlib.suppress(OSError):  # not there, or gone meanwhile
                    files.setdefault(name, opened.enter_context((self.folder / name).open("rb")))
            for name in sorted(files, key=lambda name: name == CHECKPOINT):
                self._send_changed_file(name, files[name])

    def _send_changed_file(self, name: str, file: BinaryIO) -> None:
        found = os.fstat(file.fileno())
        mark = (found.st_ino, found.st_mtime_ns)
        if self.sent.get(name) != mark:
            _send(file, name, self.home, self.arrival)
            self.home.keep_checkpoint(self.key, self.arrival, name)
            self.sent[name] = mark

    def end(self) -> None:
        """After a failure: the next try begins where this one left off, or anew if it left nothing."""
        if self.folder.exists():
            self.send_changed()
        else:
            self.home.drop_checkpoint(self.key)
