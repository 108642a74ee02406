"""Who may run in a result folder: one run at a time, or the shards of one split."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from bench.core.errors import UserError

LOCK = ".lock"
LOOK_S = 5.0  # for others that only look whether a lock is held


@dataclass(frozen=True)
class ShardPlace:
    """A shard of a split: runs of other parts of the same split may be at work beside it."""

    split: str  # a name without dashes
    name: str

    @property
    def file(self) -> str:
        """The name of its lock."""
        return f"{LOCK}-{self.split}-{self.name}"


@contextmanager
def locked(root: Path, part: ShardPlace | None = None) -> Iterator[None]:
    """Keep out of a result folder whatever may not run beside this. The lock goes with the process.

    Args:
        root: the folder, made if it is missing; one that is still empty in the end is removed.
        part: what of a sweep is run there; None: all of it, which nothing may run beside.

    Raises:
        UserError: another run is at work there, or it cannot be written.
    """
    own = root / (part.file if part else LOCK)
    patience = LOOK_S if part else 0.0
    lock = FileLock(own, timeout=patience)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        others = (path for path in sorted(root.glob(f"{LOCK}*")) if path != own)
        if any(_held(path, patience) for path in others if not _beside(path.name, part)):
            raise Timeout(str(own))
    except Timeout:
        lock.release()
        raise _at_work(root, part) from None
    except OSError as error:
        raise UserError(f"--out {root}: cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()
        if [path.name for path in root.iterdir()] == [own.name]:
            own.unlink()
            root.rmdir()


def _beside(name: str, part: ShardPlace | None) -> bool:
    """Whether a run with this lock may be at work beside this part."""
    return part is not None and re.fullmatch(rf"{LOCK}-{part.split}-[^-]*", name) is not None


def _held(path: Path, patience: float) -> bool:
    lock = FileLock(path, timeout=patience)
    try:
        lock.acquire()
    except Timeout:
        return True
    lock.release()
    return False


def _at_work(root: Path, part: ShardPlace | None) -> UserError:
    what = "the same shard, the whole sweep, or another split of it" if part else "another ddbench run"
    return UserError(f"{what} is at work in {root}: wait for it, or choose another --out")
