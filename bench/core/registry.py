"""Methods and blocks, found by name only: in `methods`, in `methods.blocks`, and in entry points.

A package elsewhere joins in with the entry-point groups `ddbench.methods` (a module like those in methods/)
and `ddbench.blocks` (a class).
"""

import difflib
import functools
import importlib
import pkgutil
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any

from bench.core.errors import UserError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ " (did you mean NEAREST?)" for the known name most like `name` in any case, or an empty text."""
    by_lower = {choice.lower(): choice for choice in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f" (did you mean {by_lower[near[0]]}?)" if near else ""


def choose(kind: str, name: str, known: Iterable[str]) -> str:
    """Check that a name is known.

    Args:
        kind: what is named, for the message: "method", "protocol".
        name: the name as the user gave it; its case matters.
        known: the valid names.

    Returns:
        `name`, unchanged.

    Raises:
        UserError: for an unknown name; the message lists the choices and suggests the nearest one.
    """
    choices = sorted(known)
    if name in choices:
        return name
    hint = did_you_mean(name, choices)
    raise UserError(f"no {kind} named {name!r}{hint}; choose from: {', '.join(choices)}")


def method_names() -> dict[str, str]:
    """{method: import path} of everything that can be named in a sweep."""
    return _method_names(tuple(sys.path))


@functools.cache
def _method_names(path: tuple[str, ...]) -> dict[str, str]:
    """What is found along this import path: looking through the installed packages takes milliseconds."""
    package = importlib.import_module("methods")
    here = {m.name: f"methods.{m.name}" for m in pkgutil.iter_modules(package.__path__) if not m.ispkg}
    return {**{e.name: e.value for e in entry_points(group="ddbench.methods")}, **here}


def method_class(name: str) -> Any:
    """The method's class: the `METHOD` of its module. Raises UserError for an unknown name."""
    path = method_names()[choose("method", name, method_names())]
    return importlib.import_module(path).METHOD


@functools.cache
def registered_blocks() -> dict[str, Any]:
    """{name: class} of all parameterisations and prerequisites."""
    here = {c.__name__: c for c in importlib.import_module("methods.blocks").BLOCKS}
    return {**{e.name: e.load() for e in entry_points(group="ddbench.blocks")}, **here}


def block_choices() -> dict[str, dict[str, Any]]:
    """{kind: {name: class or function}} of the blocks that a method is made of."""
    found: dict[str, dict[str, Any]] = importlib.import_module("methods.blocks").BLOCK_CHOICES
    return found


def block_class(name: str) -> Any:
    """One block by name. Raises UserError for an unknown name."""
    return registered_blocks()[choose("block", name, registered_blocks())]
