"""The one kind of error that a user can fix."""

from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager


class UserError(ValueError):
    """Bad input: a config, an argument, a data folder, a file.

    The message says in one line what is wrong and how to fix it; several faults take one line each. The
    command line prints it without a traceback and exits with code 2. It is a ValueError, so that pydantic
    adds the location in the file.
    """


class OverBudget(UserError):
    """A set that does not fit its budget; with a larger ipc it may."""


@contextmanager
def worker_deaths_told(work: str) -> Iterator[None]:
    """Say in a line that a process of a pool was killed inside the block.

    Args:
        work: what the processes do, as in "decodes images".

    Raises:
        UserError: one was.
    """
    try:
        yield
    except BrokenExecutor:
        raise UserError(
            f"a process that {work} was killed, perhaps for want of memory: run the same command again"
        ) from None


def first_line(error: Exception) -> str:
    """The first line of a library's error message, or the error's type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
