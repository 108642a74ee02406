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


def choose(kind: str, name: str, known: Iterable[str]) -> str:
    """`name` if it is known.

    Raises UserError with the choices and the one whose spelling is nearest, whatever its case.
    """
    choices = sorted(known)
    if name in choices:
        return name
    spelled = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(name.lower(), spelled, n=1)
    hint = f" (did you mean {spelled[near[0]]}?)" if near else ""
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
