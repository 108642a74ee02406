"""The one kind of error that a user can fix."""


class UserError(ValueError):
    """Bad input: a config, an argument, a data folder, a file.

    The message says in one line what is wrong and how to fix it; several faults take one line each. The
    command line prints it without a traceback and exits with code 2. It is a ValueError, so that pydantic
    adds the location in the file.
    """


class OverBudget(UserError):
    """A set that does not fit its budget; with a larger ipc it may."""


def first_line(error: Exception) -> str:
    """The first line of a library's error message, or the error's type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
