"""A site with a page, and the page in a browser. They need Chromium, or the tests are skipped."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers.browser import chromium, opened
from helpers.cli import ddbench, run_inline, sweep_file
from helpers.page import EVERY, HEADERS, go
from helpers.record import sweep, write

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

METHODS = ("full", "random_real", "herding", "dm", "haba")


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def site(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page of handmade records and of a run with its artifacts. Needs a browser."""
    folder = tmp_path_factory.mktemp("site")
    write(folder / "by_hand", sweep(METHODS, dataset="shapes", dataset_fingerprint="99"))
    one = {"methods": [{"name": "dm", "steps": 2}], "ipc": [2]}
    run_inline(sweep_file(folder, **one), folder / "run")
    ended = ddbench("report", folder / "by_hand", folder / "run", "--out", folder / "site", "--html")
    assert ended.code == 0, ended.err
    return folder / "site"


@pytest.fixture
def first(browser: "Browser", site: Path) -> Iterator["Page"]:
    """As it opens."""
    with opened(browser, site / "index.html") as found:
        yield found


@pytest.fixture
def page(first: "Page") -> "Page":
    """All rows, and all columns."""
    go(first, EVERY + "&columns=" + ",".join(f"%2B{name}" for name in HEADERS[1:]))
    return first
