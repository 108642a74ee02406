"""Who may import whom: a room only rooms above it, a paper never a paper, one module Ray."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = (  # a room imports only what stands before it
    *("core", "data", "records", "planning", "evaluation", "execution"),
    *("analysis", "reporting", "interop", "tools", "testing", "api", "cli"),
)
FRONT = ("bench.__main__",)  # in no room


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(p): p for package in ("bench", "methods") for p in (ROOT / package).rglob("*.py")}


def imported(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, wherever it stands, as the deepest module that exists."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in MODULES else node.module for name in names)


IMPORTS = {name: sorted(set(imported(path))) for name, path in MODULES.items()}
BENCH = sorted(name for name in MODULES if name.startswith("bench.") and name not in FRONT)
METHODS = sorted(name for name in MODULES if name.startswith("methods."))


def room(module: str) -> str:
    """bench.data.cache -> data."""
    return module.split(".")[1]


def test_every_module_is_in_a_room() -> None:
    assert {room(name) for name in BENCH} == set(ROOMS)


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_only_rooms_above_it(name: str) -> None:
    above = set(ROOMS[: ROOMS.index(name) + 1])
    for module in (module for module in BENCH if room(module) == name):
        inside = [found for found in IMPORTS[module] if found.split(".")[0] == "bench"]
        assert "bench" not in inside, f"{module} imports the front door"
        assert {room(found) for found in inside} <= above, module
        assert not any(found.split(".")[0] == "methods" for found in IMPORTS[module]), "found by name"


def test_no_cycle_inside_a_room() -> None:
    """Each module can be put after those that it imports."""
    left = {m: {n for n in IMPORTS[m] if n.startswith("bench.") and n != m} for m in BENCH}
    while ready := [m for m, needs in left.items() if not needs & left.keys()]:
        for module in ready:
            del left[module]
    assert not left, f"these import each other: {sorted(left)}"


@pytest.mark.parametrize("module", METHODS)
def test_methods_import_core_and_blocks(module: str) -> None:
    is_block = module.startswith("methods.blocks")
    for name in IMPORTS[module]:
        if name.startswith("bench"):
            assert room(name) == "core"
        elif name.startswith("methods"):
            assert name.startswith("methods.blocks"), "a paper imports no paper, and a block none either"
        else:
            assert name.split(".")[0] not in ("ray", "pandas"), name
    if module == "methods.blocks.objectives":
        assert not any("parameterise" in name for name in IMPORTS[module]), "it never asks what made them"
    if module.startswith("methods.blocks.parameterise"):
        assert not any("network" in name for name in IMPORTS[module]), "a parameterisation knows no network"
    assert is_block or not any(name == "methods" for name in IMPORTS[module])


def test_two_modules_import_ray() -> None:
    users = [name for name in MODULES if any(i.split(".")[0] == "ray" for i in IMPORTS[name])]
    assert users == ["bench.execution.ray_cluster", "bench.execution.ray_trials", "bench.execution.ray_tune"]


def test_only_scoring_reads_the_test_split() -> None:
    """`.test` of a data set, anywhere outside the room that makes it."""
    users = {
        name
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "test" and not name.startswith("bench.data")
    }
    assert users == {"bench.evaluation.scoring"}


def loaded(imports: str, *packages: str) -> set[str]:
    """Which of these packages a fresh interpreter has loaded after the imports."""
    code = (
        f"import sys, {imports}; print(*{{name.split('.')[0] for name in sys.modules}} & {set(packages)!r})"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(found.stdout.split())


def test_light_modules_stay_light() -> None:
    """Tables, a command's --help, the decoding processes and two whole rooms start without torch and Ray."""
    light = ["bench.reporting.build", "bench.cli.app", "bench.data.decode"]
    light += [module for module in BENCH if room(module) in ("records", "analysis")]
    assert loaded(", ".join(light), "torch", "ray", "torchvision", "pandas") == {"pandas"}


def test_the_harness_loads_no_method_and_no_ray() -> None:
    harness = (
        "bench.execution.session, bench.cli.listing, bench.reporting.images.gallery, bench.execution.inline"
    )
    assert loaded(harness, "methods", "ray", "torch", "torchvision") == {"torch"}
