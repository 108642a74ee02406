"""The result folder for nodes that do not see it: read and written in pieces, on the machine that has it."""

import os
import shutil
from pathlib import Path
from typing import Protocol

from bench.core.io import sync, write_atomic, writing
from bench.core.loop import CHECKPOINT
from bench.execution.deaths import node_file
from bench.execution.store import Store

PIECE = 2**25  # bytes of a file that travel at once


class Folder(Protocol):
    """What a node asks the machine that has the result folder: a `FolderServer`, called through Ray."""

    def begin(self, trial: str, node: str) -> bytes:
        """The pickled job of a trial, which begins on this node."""
        ...

    def state(self, kind: str, key: str) -> str | None:
        """As `Store.state`."""
        ...

    def names(self, folder: str) -> list[str]:
        """The plain files of a folder; none where there is no such folder."""
        ...

    def read(self, path: str, offset: int) -> bytes:
        """A piece of a file; empty behind its end."""
        ...

    def write(self, arrival: str, name: str, offset: int, piece: bytes) -> None:
        """A piece of a file of an arrival, which is kept until it is published."""
        ...

    def publish(self, kind: str, key: str, arrival: str) -> None:
        """Publish an artifact or a record that has arrived, if it is whole."""
        ...

    def keep_checkpoint(self, key: str, arrival: str, name: str) -> None:
        """Put a file that has arrived into the folder of a checkpoint."""
        ...

    def drop_checkpoint(self, key: str) -> None:
        """Remove the folder of a checkpoint."""
        ...

    def keep_log(self, key: str, text: str | None) -> None:
        """Write the log of a failure, or remove the one of an earlier try."""
        ...


class FolderServer:
    """A `Folder` on its own machine. It holds no state: a call that is repeated does the same again."""

    def __init__(self, root: str, scratch: str) -> None:
        """`scratch` is a folder beside the results, on the same disk, that goes with the run."""
        self.store, self.scratch = Store(Path(root)), Path(scratch)

    def begin(self, trial: str, node: str) -> bytes:
        """The pickled job of a trial, which begins on this node."""
        (self.scratch / node_file(trial)).write_text(node)
        return (self.scratch / trial).read_bytes()

    def state(self, kind: str, key: str) -> str | None:
        """As `Store.state`."""
        return self.store.state(kind, key)

    def names(self, folder: str) -> list[str]:
        """The plain files of a folder; none where there is no such folder."""
        return sorted(p.name for p in Path(folder).glob("[!.]*") if p.is_file())

    def read(self, path: str, offset: int) -> bytes:
        """A piece of a file; empty behind its end."""
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(PIECE)

    def write(self, arrival: str, name: str, offset: int, piece: bytes) -> None:
        """A piece of a file of an arrival, which is kept until it is published."""
        path = self._arrival(arrival) / _plain(name)
        with writing(self.store.root):
            path.parent.mkdir(exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as file:
                file.seek(offset)
                file.write(piece)

    def publish(self, kind: str, key: str, arrival: str) -> None:
        """Publish an artifact or a record that has arrived, if it is whole; with its checkpoint gone."""
        folder = self._arrival(arrival)
        try:
            self.store.receive(kind, key, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self.drop_checkpoint(key)

    def keep_checkpoint(self, key: str, arrival: str, name: str) -> None:
        """Put a file that has arrived into the folder of a checkpoint."""
        path, folder = self._arrival(arrival) / _plain(name), self.store.checkpoint(_plain(key))
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if name == CHECKPOINT:
                sync(path)
            os.replace(path, folder / name)

    def drop_checkpoint(self, key: str) -> None:
        """Remove the folder of a checkpoint."""
        shutil.rmtree(self.store.checkpoint(_plain(key)), ignore_errors=True)

    def keep_log(self, key: str, text: str | None) -> None:
        """Write the log of a failure, or remove the one of an earlier try."""
        if text is None:
            self.store.log(_plain(key)).unlink(missing_ok=True)
        else:
            write_atomic(self.store.log(_plain(key)), text)

    def _arrival(self, name: str) -> Path:
        return self.scratch / _plain(name)


def _plain(name: str) -> str:
    """A name that leads into no other folder. Raises ValueError."""
    if Path(name).name != name or name == "..":
        raise ValueError(f"{name!r} is no plain name")
    return name
