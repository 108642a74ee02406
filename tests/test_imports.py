"""Who may import whom: the substrate never the harness, a paper never a paper, one module Ray."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUBSTRATE = (
    *("errors", "files", "rng", "plugins", "libraries", "record", "timing", "decode"),
    *("networks", "preprocess", "artifact", "journal", "method", "data", "policies", "augment", "train"),
)
HARNESS = (
    *("students", "metrics", "importers", "exporters", "strict", "presets", "protocols", "config", "plan"),
    *("store", "estimate", "exam", "evaluate", "job", "progress", "sweep", "session", "foreign", "verify"),
    *("gallery", "ragged", "bootstrap", "labels", "rows", "frames", "aggregate", "ranking", "statistics"),
    *("compare", "published", "report", "submit", "thumbnails", "recall", "profile", "catalogue"),
    *("terminal", "cli_foreign", "cli_profile", "cli_report", "cli_results", "cli_submit", "cli"),
    "__main__",
)
ARROW = SUBSTRATE + HARNESS  # a module imports only what stands to its left


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
BENCH = sorted(name for name in MODULES if name.startswith("bench."))
METHODS = sorted(name for name in MODULES if name.startswith("methods."))


def concern(module: str) -> str:
    """bench.data.cache -> data."""
    return module.split(".")[1]


def test_the_arrow_names_every_module_once() -> None:
    assert sorted(ARROW) == sorted({concern(name) for name in BENCH})


@pytest.mark.parametrize("module", BENCH)
def test_bench_imports_only_to_its_left(module: str) -> None:
    inside = [name for name in IMPORTS[module] if name.startswith("bench.")]
    others = {concern(name) for name in inside} - {concern(module)}
    assert all(ARROW.index(other) < ARROW.index(concern(module)) for other in others), others
    assert "bench" not in IMPORTS[module]
    assert not any(name.split(".")[0] == "methods" for name in IMPORTS[module]), "methods are found by name"


def test_no_cycle_inside_a_folder() -> None:
    """Each module of bench.data, bench.report, ... can be put after those that it imports."""
    left = {m: {n for n in IMPORTS[m] if n.startswith("bench.") and n != m} for m in BENCH}
    while ready := [m for m, needs in left.items() if not needs & left.keys()]:
        for module in ready:
            del left[module]
    assert not left, f"these import each other: {sorted(left)}"


@pytest.mark.parametrize("module", METHODS)
def test_methods_import_the_substrate_and_blocks(module: str) -> None:
    is_block = module.startswith("methods.blocks")
    for name in IMPORTS[module]:
        if name.startswith("bench"):
            assert concern(name) in SUBSTRATE
        elif name.startswith("methods"):
            assert name.startswith("methods.blocks"), "a paper imports no paper, and a block none either"
        else:
            assert name.split(".")[0] not in ("ray", "pandas"), name
    if module == "methods.blocks.objectives":
        assert not any("parameterise" in name for name in IMPORTS[module]), "it never asks what made them"
    if module.startswith("methods.blocks.parameterise"):
        assert not any("network" in name for name in IMPORTS[module]), "a parameterisation knows no network"
    assert is_block or not any(name == "methods" for name in IMPORTS[module])


def test_one_module_imports_ray() -> None:
    users = [name for name in MODULES if any(i.split(".")[0] == "ray" for i in IMPORTS[name])]
    assert users == ["bench.sweep.on_ray"]


def test_only_the_exam_reads_the_test_split() -> None:
    """`.test` of a data set, anywhere outside the package that makes it."""
    users = {
        name
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "test" and not name.startswith("bench.data")
    }
    assert users == {"bench.exam"}


def loaded(imports: str, *packages: str) -> set[str]:
    """Which of these packages a fresh interpreter has loaded after the imports."""
    code = (
        f"import sys, {imports}; print(*{{name.split('.')[0] for name in sys.modules}} & {set(packages)!r})"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(found.stdout.split())


def test_light_modules_stay_light() -> None:
    """Tables, a command's --help and the decoding processes start without torch and Ray."""
    light = "bench.aggregate, bench.report, bench.cli, bench.decode"
    assert loaded(light, "torch", "ray", "torchvision", "pandas") == {"pandas"}


def test_the_harness_loads_no_method_and_no_ray() -> None:
    harness = "bench.session, bench.catalogue, bench.gallery, bench.sweep.inline"
    assert loaded(harness, "methods", "ray", "torch", "torchvision") == {"torch"}
