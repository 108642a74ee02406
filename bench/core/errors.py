"""The one kind of error that a user can mend."""


class UserError(ValueError):
    """Bad input: a config, an argument, a data folder, a file.

    The message says what is wrong and how to mend it, in one line, or a line for each of several faults. The
    command line prints it without a traceback and exits with code 2. It is a ValueError, so that pydantic
    adds the place in a file.
    """


def first_line(error: Exception) -> str:
    """The first line of a library's error message, or the error's type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
