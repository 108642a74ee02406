"""The one kind of error that a user can mend."""


class UserError(ValueError):
    """Bad input: a config, an argument, a data folder, a file.

    The message is one line that says what is wrong and how to mend it. The command line prints it
    without a traceback and exits with code 2. A ValueError, so that pydantic adds where it stood.
    """


def first_line(error: Exception) -> str:
    """What an error of someone else's says, or its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
