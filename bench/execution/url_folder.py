"""A result folder behind a URL (s3, gs, hdfs): what finishes goes there, and is found there from elsewhere.

The jobs write into a folder on this machine. An artifact is sent file by file, its meta.json last: without it
there is no artifact. What is there already is never written again.
"""

import contextlib
import hashlib
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from pyarrow import ArrowInvalid
from pyarrow.fs import FileSelector, FileSystem, FileType

from bench.core.errors import UserError, first_line
from bench.core.io import temporary
from bench.data.cache import cache_dir
from bench.execution.queue import Outcome
from bench.execution.session import Session
from bench.execution.store import Store
from bench.records.artifact import META

SEND_S = 2.0  # between two looks for what has finished
PIECE = 2**25  # bytes of a file that are held at once
OBJECT_STORES = ("s3", "gcs", "abfs")  # they have no folders, and a file is there when it is whole


class UrlFolder:
    """The artifacts and records behind a URL, and the folder here that mirrors them."""

    def __init__(self, url: str) -> None:
        """Raises UserError for a URL that nothing opens, or that cannot be listed."""
        self.name = re.sub("//[^/@]*@", "//", url.partition("?")[0])  # without what opens it
        try:
            self.files, self.path = FileSystem.from_uri(url)
            if not self.path.strip("/"):
                raise OSError("it names no bucket or folder")
            bucket = self.path.partition("/")[0]
            if self.files.type_name in OBJECT_STORES and not self._is(bucket, FileType.Directory):
                raise OSError(f"there is no bucket {bucket}")
            self.there = {kind: self._names(kind) for kind in ("artifacts", "records")}
        except (OSError, ArrowInvalid, NotImplementedError) as error:
            raise self._unread(error) from None
        digest = hashlib.sha256(self.name.rstrip("/").encode()).hexdigest()[:16]
        self.store = Store(cache_dir() / "urls" / digest)

    def _unread(self, error: Exception) -> UserError:
        return UserError(f"--out {self.name}: cannot be read: {first_line(error).rstrip('.')}")

    def _names(self, kind: str) -> set[str]:
        found = self.files.get_file_info(FileSelector(f"{self.path}/{kind}", allow_not_found=True))
        return {info.base_name for info in found if not info.base_name.startswith(".")}

    def holds(self, kind: str, key: str) -> bool:
        """Whether something finished may be there by this key."""
        if kind == "evaluate":
            return f"{key}.json" in self.there["records"]
        return key in self.there["artifacts"] and self._is(
            f"{self.path}/artifacts/{key}/{META}", FileType.File
        )

    def _is(self, path: str, kind: FileType) -> bool:
        return self.files.get_file_info(path).type == kind

    def fetch(self, kind: str, key: str) -> None:
        """Copy a finished job into the store here. Raises ValueError with the reason when it is not whole."""
        self.store.root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self.store.root, prefix=temporary(key)))
        try:
            if kind == "evaluate":
                self._get(f"records/{key}.json", folder / f"{key}.json")
            else:
                for info in self.files.get_file_info(FileSelector(f"{self.path}/artifacts/{key}")):
                    self._get(f"artifacts/{key}/{info.base_name}", folder / info.base_name)
            self.store.receive(kind, key, folder)
        except OSError as error:
            raise self._unread(error) from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def send(self, kind: str, key: str) -> None:
        """Copy a finished job there, unless it is there. Raises OSError."""
        if self.holds(kind, key):
            return
        if kind == "evaluate":
            self._put(self.store.record(key), f"records/{key}.json")
            self.there["records"].add(f"{key}.json")
        else:
            folder = self.store.artifact(key)
            for path in sorted(folder.iterdir(), key=lambda path: path.name == META):
                self._put(path, f"artifacts/{key}/{path.name}")
            self.there["artifacts"].add(key)

    def _get(self, name: str, path: Path) -> None:
        with self.files.open_input_stream(f"{self.path}/{name}") as source, path.open("wb") as file:
            shutil.copyfileobj(source, file, PIECE)

    def _put(self, path: Path, name: str) -> None:
        whole = f"{self.path}/{name}"
        plain = self.files.type_name not in OBJECT_STORES
        target = f"{whole}.unfinished" if plain else whole
        if plain:
            self.files.create_dir(whole.rpartition("/")[0])
        with path.open("rb") as file, self.files.open_output_stream(target) as there:
            shutil.copyfileobj(file, there, PIECE)
        if plain:
            self.files.move(target, whole)


def fetch_finished(session: Session, folder: UrlFolder) -> None:
    """Take from the URL what the plan needs of it: records, and the artifacts of cells that lack one."""
    needed: set[str] = set()
    for key, job in reversed(session.jobs.items()):
        if session.states[key] is None or not (job.kind == "evaluate" or key in needed):
            continue
        if folder.holds(job.kind, key):
            with contextlib.suppress(ValueError):  # damaged: it is made and sent again
                folder.fetch(job.kind, key)
                session.states[key] = None
                continue
            folder.there["records" if job.kind == "evaluate" else "artifacts"] -= {key, f"{key}.json"}
        needed |= set(job.inputs.values())


class _Sender:
    """Sends what has finished, in a thread; what did not arrive is tried again, the last time at the end."""

    def __init__(self, session: Session, folder: UrlFolder) -> None:
        self.session, self.folder = session, folder
        self.left = dict(session.jobs)
        self.faults: dict[str, str] = {}

    def send_finished(self) -> None:
        """Send what is here and has not been sent."""
        for key, job in list(self.left.items()):
            store = self.session.store
            path = store.record(key) if job.kind == "evaluate" else store.artifact(key)
            if not path.exists():
                continue
            try:
                self.folder.send(job.kind, key)
            except OSError as error:
                self.faults[key] = f"finished, but not sent to {self.folder.name}: {first_line(error)}"
                return  # the others would wait for the same
            self.faults.pop(key, None)
            del self.left[key]

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Send while the block runs, and what is left at its end."""
        ended = threading.Event()

        def send() -> None:
            while not ended.wait(SEND_S):
                self.send_finished()

        sender = threading.Thread(target=send, name="uploads", daemon=True)
        sender.start()
        try:
            yield
        finally:
            ended.set()
            sender.join()
            self.send_finished()


def run_sending(session: Session, folder: UrlFolder, run: Callable[[], Outcome]) -> Outcome:
    """`run`, while what finishes is sent; what did not arrive counts as failed."""
    sender = _Sender(session, folder)
    with sender.sending():
        outcome = run()
    outcome.failed |= sender.faults
    return outcome
