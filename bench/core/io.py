"""Atomic writes: a file is whole, or it is not there."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def temporary(name: str) -> str:
    """A hidden name with machine and process in it, so that files of killed processes can be removed."""
    return f".tmp-{socket.gethostname()}+{os.getpid()}-{name}-"  # no machine's name has a plus


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; if the block ends without an error, flush it and rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(temporary(path.name))
    try:
        yield unfinished
        sync(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_atomic(path: Path, text: str) -> Path:
    """Write a whole text file, with the same bytes on every platform, and return its path."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
    return path
