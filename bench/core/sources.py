"""The source files that a result is computed by: a digest of them moves when one of them is edited."""

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

# whose imports are followed, beside those of the package that a method from elsewhere stands in
FOLLOWED = ("methods", "bench.core", "bench.evaluation")


@functools.cache
def source_digest(*roots: str) -> str:
    """A digest of these modules and of all that they import, 16 hex digits.

    It is taken once in a process, as the code is loaded once.

    Args:
        roots: modules by name, or Python files by path.
    """
    files = source_files(*roots)
    digest = hashlib.sha256()
    for name in sorted(files):
        content = _read(files[name])
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def source_files(*roots: str) -> dict[str, Path]:
    """{module: file} of these modules and of all that they import, in turn, from the same packages."""
    tops = {root.partition(".")[0] for root in roots if not root.endswith(".py")} - {"bench"}
    followed = tuple(f"{name}." for name in (*FOLLOWED, *tops))
    found: dict[str, Path] = {}
    open_ = list(roots)
    while open_:
        root = open_.pop()
        path = Path(root) if root.endswith(".py") else _file(root)
        name = path.stem if path and root.endswith(".py") else root
        if path is None or name in found:
            continue
        found[name] = path
        open_ += [module for module in _imports(path, name) if f"{module}.".startswith(followed)]
    return found


@functools.cache
def _file(module: str) -> Path | None:
    """The file of a module; None for what is no module, or not written in Python."""
    top, *parts = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if spec.submodule_search_locations is None:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") and not parts else None
    for folder in spec.submodule_search_locations:
        path = Path(folder, *parts)
        for candidate in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


@functools.cache
def _read(path: Path) -> bytes:
    return path.read_bytes()


def _imports(path: Path, module: str) -> Iterator[str]:
    """Every module that a file names in an import, wherever it stands there."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(_read(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            origin = importlib.util.resolve_name(name, package) if node.level else name
            for alias in node.names:
                inside = f"{origin}.{alias.name}"
                yield inside if _file(inside) else origin
