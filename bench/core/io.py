"""Atomic writes: a file is whole, or it is not there."""

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DAY = 86400  # seconds


def temporary(name: str) -> str:
    """A hidden name with machine and process in it, so that files of killed processes can be removed."""
    return f".tmp-{socket.gethostname()}+{os.getpid()}-{name}-"  # no machine's name has a plus


def remove_leftovers(folder: Path) -> None:
    """Remove what has a `temporary` name in a folder, if its process is dead or it is a day old."""
    mine = f".tmp-{socket.gethostname()}+"
    for path in folder.glob(".tmp-*"):
        pid = path.name.removeprefix(mine).split("-")[0]
        dead = path.name.startswith(mine) and pid.isdigit() and not _alive(int(pid))
        with contextlib.suppress(OSError):  # finished and renamed meanwhile, or of another user
            if dead or time.time() - path.stat().st_mtime > _DAY:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; if the block ends without an error, flush it and rename it to `path`.

    It is alone in a folder, because safetensors writes to a name of its own beside it.
    """
    folder = path.with_name(temporary(path.name))
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / path.name
    try:
        yield unfinished
        sync(unfinished)
        os.replace(unfinished, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_atomic(path: Path, text: str) -> Path:
    """Write a whole text file, with the same bytes on every platform, and return its path."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
    return path
