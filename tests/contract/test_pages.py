"""The pages: every link leads somewhere, every command exists, every column is explained."""

import re
from pathlib import Path

import pytest
import yaml
from helpers.excerpts import EXCERPT, renewed
from helpers.excerpts import PAGES as PAGES_WITH_TABLES

from bench.cli.app import COMMANDS
from bench.core.registry import method_names
from bench.records.columns import COLUMNS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / room / "README.md" for room in ("bench", "methods", "configs", "results"))]
)
NAMES = {name for name, *_ in COMMANDS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    local = [target for target in targets if not target.startswith("http")]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    text = page.read_text()
    assert set(re.findall(r"(?:`|^\$ )ddbench ([a-z][a-z-]*)", text, flags=re.M)) <= NAMES
    for path in re.findall(r"configs/[\w/]+\.yaml", text):
        assert (ROOT / path).exists() or path.endswith("/mine.yaml"), path


@pytest.mark.parametrize("page", PAGES_WITH_TABLES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_are_those_of_the_committed_results(page: Path) -> None:
    text = page.read_text()
    assert len(EXCERPT.findall(text)) == text.count("<!-- ")
    assert renewed(text) == text


def test_the_methods_are_all_named() -> None:
    text = (ROOT / "methods" / "README.md").read_text()
    assert [name for name in method_names() if f"`{name}`" not in text] == []


def test_every_column_of_a_record_is_explained() -> None:
    explained = re.findall(r"^\| `(\w+)` \|", (ROOT / "bench" / "README.md").read_text(), flags=re.M)
    assert [name for name in COLUMNS if name not in explained] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def test_the_citation_is_valid() -> None:
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "license"} <= found.keys()
