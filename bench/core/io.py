"""Atomic writes: a file is whole, or it is not there."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def temporary(name: str) -> str:
    """A hidden name that holds machine and process, so that what a killed process left can be removed."""
    return f".tmp-{socket.gethostname()}+{os.getpid()}-{name}-"  # no machine's name has a plus


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of files, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block ends without an error it is flushed and renamed to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(temporary(path.name))
    try:
        yield unfinished
        sync(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_atomic(path: Path, text: str) -> Path:
    """Write a text file whole; the same bytes on every platform."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
    return path
