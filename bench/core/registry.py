"""Methods and blocks by name: from `methods`, from other packages, and from files that the user names.

Another package provides them as entry points: `ddbench.methods` (a module with METHOD, as in methods/),
`ddbench.blocks` (a class) and `ddbench.presets` (a package that holds <method>.yaml). `load_plugin` adds the
method of a single file.
"""

import difflib
import functools
import hashlib
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.core.errors import UserError, first_line
from bench.core.io import write_atomic
from bench.core.words import LONGEST_NAME, check_name, plain_text

PLUGINS = "DDBENCH_PLUGINS"  # the files of `load_plugin`, for the processes that this one starts
_OWN = Path(__file__).resolve().parents[2] / "methods"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ " (did you mean NEAREST?)" for the known name most like `name` in any case, or an empty text."""
    by_lower = {choice.lower(): choice for choice in known}
    near = difflib.get_close_matches(name[:LONGEST_NAME].lower(), by_lower, n=1)
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
    raise UserError(f"no {kind} named {plain_text(name)!r}{hint}; choose from: {', '.join(choices)}")


# --- where methods come from --------------------------------------------------------------------------------


def own_methods() -> ModuleType:
    """ddbench's own package `methods`, even if the working folder has one of that name.

    Raises UserError when another package named `methods` has been imported already.
    """
    found = sys.modules.get("methods")
    if found is None:
        found = _load("methods", _OWN / "__init__.py", [str(_OWN)])
    elif str(_OWN) not in map(str, found.__path__):
        raise UserError(f"another package named methods was imported from {list(found.__path__)}: rename it")
    return found


def _load(name: str, path: Path, folders: list[str] | None = None) -> ModuleType:
    """Load a module from its file under the given name, whatever the import path is."""
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=folders)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@functools.cache
def _installed(group: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """The entry points of a group along this import path: looking through all packages takes milliseconds."""
    points = entry_points(group=f"ddbench.{group}")
    for point in points:
        try:
            check_name(point.name)
        except UserError as error:
            raise UserError(f"an entry point for {point.value} {error}: remove its package") from None
    return {point.name: point for point in points}


def _points(group: str) -> dict[str, EntryPoint]:
    return _installed(group, tuple(sys.path))


def _plugin_files() -> dict[str, str]:
    """{method: file} of the plugins loaded in this process or in the one that started it."""
    return {Path(path).stem: path for path in os.environ.get(PLUGINS, "").split(os.pathsep) if path}


def plugin_environment() -> dict[str, str]:
    """The environment variable that lists the plugin files, for the processes of a cluster."""
    return {PLUGINS: os.environ[PLUGINS]} if PLUGINS in os.environ else {}


def fetch_plugins(read: Callable[[str], bytes], folder: Path) -> None:
    """Copy the plugin files from the machine that listed them; this process finds the copies from now on.

    Args:
        read: the content of a file of that machine.
        folder: where the copies go, each in a folder named by its content.
    """
    copies = []
    for listed in _plugin_files().values():
        copy = Path(listed)
        if not copy.is_relative_to(folder):
            content = read(listed)
            copy = folder / hashlib.sha256(content).hexdigest()[:16] / copy.name
            if not copy.exists():
                write_atomic(copy, content.decode())
        copies.append(str(copy))
    if copies:
        os.environ[PLUGINS] = os.pathsep.join(copies)


def load_plugin(path: Path) -> str:
    """Register the method of one file under the file's name, in this process and in those it starts.

    Args:
        path: a Python file that defines METHOD, as those in methods/ do.

    Returns:
        The method's name.

    Raises:
        UserError: there is no such file, its name is taken or is not an identifier, it fails to load, or it
            defines no METHOD.
    """
    path = path.expanduser().resolve()
    name = path.stem
    if not path.is_file() or path.suffix != ".py":
        raise UserError(f"--plugin {path}: no such Python file")
    known = _plugin_files()
    if known.get(name) == str(path):
        return name
    if not name.isidentifier() or len(name) > LONGEST_NAME or name in method_names():
        raise UserError(f"--plugin {path}: {name} is taken, or no name for a method: rename the file")
    try:
        _plugin_module(str(path))
    except Exception as error:  # the user's own code may raise anything
        raise UserError(
            f"--plugin {path}: does not load: {type(error).__name__}: {first_line(error)}"
        ) from error
    os.environ[PLUGINS] = os.pathsep.join([*known.values(), str(path)])
    return name


@functools.cache
def _plugin_module(path: str) -> ModuleType:
    """The module of a file that defines METHOD; unpickling finds it again by its name."""
    own_methods()  # a file may import its blocks
    module = _load(f"ddbench_plugin_{Path(path).stem}", Path(path))
    if not hasattr(module, "METHOD"):
        raise AttributeError("it defines no METHOD")
    return module


# --- methods ------------------------------------------------------------------------------------------------


@functools.cache
def own_method_names() -> tuple[str, ...]:
    """The names of ddbench's own methods, sorted."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules([str(_OWN)]) if not m.ispkg))


def method_names() -> dict[str, str]:
    """{method: import path or file} of every method that a sweep can name."""
    others = {name: point.value for name, point in _points("methods").items()}
    return {**others, **_plugin_files(), **{name: f"methods.{name}" for name in own_method_names()}}


def method_class(name: str) -> Any:
    """The method's class: the METHOD of its module. Raises UserError for an unknown name."""
    where = method_names()[choose("method", name, method_names())]
    own_methods()
    module = _plugin_module(where) if where.endswith(".py") else importlib.import_module(where)
    return module.METHOD


def method_source(name: str) -> str:
    """Where a method is written: the import path of its module, or its file."""
    return method_names()[choose("method", name, method_names())]


def method_package(name: str) -> dict[str, str]:
    """{package: version} of the package that provides a method; empty for ddbench's own and for files."""
    point = _points("methods").get(name)
    return {} if point is None or point.dist is None else {point.dist.name: point.dist.version}


def brought_presets(name: str) -> Path | None:
    """The file of presets that another package provides for a method, or None."""
    point = _points("presets").get(name)
    return None if point is None else Path(str(files(point.value) / f"{name}.yaml"))


# --- blocks -------------------------------------------------------------------------------------------------


def registered_blocks() -> dict[str, Any]:
    """{name: class} of all parameterisations and prerequisites, as artifacts and job keys name them."""
    own_methods()
    here = {c.__name__: c for c in importlib.import_module("methods.blocks").BLOCKS}
    return {**{name: point.load() for name, point in _points("blocks").items()}, **here}


def block_choices() -> dict[str, dict[str, Any]]:
    """{kind: {name: class or function}} of the blocks that methods are built from."""
    own_methods()
    found: dict[str, dict[str, Any]] = importlib.import_module("methods.blocks").BLOCK_CHOICES
    return found


def block_class(name: str) -> Any:
    """One block by name. Raises UserError for an unknown name."""
    return registered_blocks()[choose("block", name, registered_blocks())]
