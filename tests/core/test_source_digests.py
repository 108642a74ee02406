"""Which files a result is computed by: a method's own, what it imports, and nothing else."""

from pathlib import Path

import pytest

from bench.core import sources
from bench.core.registry import own_method_names, own_methods


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """No digest and no file of an earlier test is remembered."""
    own_methods()
    for cached in (sources.source_digest, sources._file, sources._read):
        cached.cache_clear()


def test_a_method_stands_on_its_file_its_blocks_and_the_core() -> None:
    found = sources.source_files("methods.mtt")
    assert {
        "methods.mtt",
        "methods.blocks.experts",
        "methods.blocks.students",  # imported by a block
        "bench.core.training",
        "bench.core.augment.policies",
    } <= found.keys()
    others = {f"methods.{name}" for name in own_method_names()} - {"methods.mtt"}
    assert not found.keys() & (others | {"methods.blocks", "methods.blocks.coresets"})
    assert all(name.startswith(("methods.", "bench.core.")) for name in found)
    assert all(path.is_file() for path in found.values())


def test_what_scores_stands_on_the_evaluation_too() -> None:
    found = sources.source_files("bench.evaluation.scoring")
    assert {"bench.evaluation.students", "bench.core.training", "bench.evaluation.metrics"} <= found.keys()
    assert not any(name.startswith("methods") for name in found)


PLUGIN = """
from bench.core.sampling import ClassIndex
def late():
    from methods.blocks import coresets
    import json
"""


def test_a_plugin_stands_on_its_file_and_what_it_imports_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    found = sources.source_files(str(file))
    assert found["mine"] == file
    assert {"bench.core.sampling", "methods.blocks.coresets"} <= found.keys()
    assert "json" not in found


def test_a_package_from_elsewhere_is_followed_inside_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "theirs_of_sources"
    package.mkdir()
    (package / "__init__.py").write_text("VALUE = 1\n")
    (package / "mine.py").write_text("from . import VALUE\nfrom .help import thing\nimport numpy\n")
    (package / "help.py").write_text("thing = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = sources.source_files("theirs_of_sources.mine")
    assert found.keys() == {"theirs_of_sources", "theirs_of_sources.mine", "theirs_of_sources.help"}


def test_an_edit_anywhere_moves_the_digest_and_a_place_does_not(tmp_path: Path) -> None:
    def digest(folder: str, text: str) -> str:
        file = tmp_path / folder / "mine.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        sources.source_digest.cache_clear()
        sources._read.cache_clear()
        return sources.source_digest(str(file))

    assert digest("one", PLUGIN) == digest("two", PLUGIN)
    assert digest("one", PLUGIN) != digest("one", PLUGIN.replace("json", "csv"))
    assert digest("one", "") != digest("one", PLUGIN)
    assert len(digest("one", PLUGIN)) == 16
