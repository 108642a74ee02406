"""Files: written whole or not at all; those that others made are read without a wait and within bounds."""

import contextlib
import errno
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from bench.core.errors import UserError

_DAY = 86400  # seconds
_NOT_WRITABLE = {  # errors that say so
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
}
MOST_BYTES = 2**24  # of a JSON file; records take kilobytes, and a thousand classes less than a megabyte


def temporary(name: str) -> str:
    """A hidden name with machine and process in it, so that files of killed processes can be removed."""
    return f".tmp-{socket.gethostname()}+{os.getpid()}-{name}-"  # no machine's name has a plus


def remove_leftovers(folder: Path) -> None:
    """Remove what has a `temporary` name in a folder, if its process is dead or it is a day old."""
    mine = f".tmp-{socket.gethostname()}+"
    for path in folder.glob(".tmp-*"):
        pid = path.name.removeprefix(mine).split("-")[0]
        dead = path.name.startswith(mine) and pid.isdecimal() and not _alive(int(pid))
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

    It is alone in a folder, because safetensors writes to a name of its own beside it. Raises UserError as
    `writing` does.
    """
    folder = path.with_name(temporary(path.name))
    unfinished = folder / path.name
    try:
        with writing(path):
            folder.mkdir(parents=True, exist_ok=True)
            yield unfinished
            sync(unfinished)
            os.replace(unfinished, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in a line that `path` cannot be written, when that is why the block ends.

    Raises:
        UserError: the disk is full, the folder is read-only, or the like.
    """
    try:
        yield
    except Exception as error:  # torch and safetensors raise kinds of their own when a disk is full
        number = _error_number(error)
        if number not in _NOT_WRITABLE:
            raise
        room = number in (errno.ENOSPC, errno.EDQUOT)
        mend = "make room, and run the same command again" if room else "choose another folder"
        raise UserError(f"{path}: cannot be written: {os.strerror(number)}; {mend}") from error


def _error_number(error: Exception) -> int | None:
    """The system's number; safetensors has it in its message, torch raises an error of its own after it."""
    for one in (error, error.__context__ if isinstance(error, RuntimeError) else None):
        if isinstance(one, OSError):
            return one.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def write_atomic(path: Path, text: str) -> Path:
    """Write a whole text file, with the same bytes on every platform, and return its path."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
    return path


def check_writable(folder: Path, mend: str) -> None:
    """Check, before any work, that files can be written into a folder, which may still be to be made.

    Args:
        folder: where files are to be written.
        mend: what to do about it, which ends the message.

    Raises:
        UserError: they cannot.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}; {mend}") from None


def read_plain_file(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a whole file that somebody else may have made.

    Args:
        path: the file; a pipe or a device of that name is not read, which could wait or go on for ever.
        most: bytes that it may hold.

    Returns:
        Its content.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no plain file, or too large; the message continues a sentence that begins with its
            name.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("is no plain file")
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"is larger than {most // 2**20} MiB")
    return content


def read_json(path: Path) -> Any:
    """Read a JSON file that somebody else may have made, as `read_plain_file` does.

    Several times as fast as the standard library, and nested 200 times at most.

    Raises:
        OSError: it cannot be opened.
        ValueError: as `read_plain_file`, or it is not JSON.
    """
    content = read_plain_file(path)
    try:
        return from_json(content)
    except ValueError:
        raise ValueError("is not readable as JSON") from None
