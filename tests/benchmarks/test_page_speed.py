"""How long a page of 10,000 rows takes in Chromium: to its first row, to sort, to filter, to open a row."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from helpers.browser import chromium, opened
from helpers.record import make, write
from pytest_benchmark.fixture import BenchmarkFixture

from bench.records.columns import record_frame
from bench.reporting.html.page import render_page
from bench.reporting.sections import RecordsView

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROWS, SEEDS = 10_000, 3
SHOWN = "document.querySelector('#board tbody th')"
# from the event to the frame in which its effect is drawn
TIMED = """async () => {{
  const start = performance.now();
  {act};
  while (!({done})) await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return performance.now() - start;
}}"""


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> RecordsView:
    """40 methods at 5 budgets on 50 networks, three seeds each."""
    records = [
        make(f"m{m:02}", ipc, (0.2 + m / 80 + ipc / 200,) * 2, seed=seed, eval_arch=f"net-w{net}")
        for m in range(40)
        for ipc in (1, 2, 5, 10, 50)
        for net in range(50)
        for seed in range(SEEDS)
    ]
    folder = write(tmp_path_factory.mktemp("many"), records)
    return RecordsView(record_frame(records), (folder,))


@pytest.fixture(scope="module")
def path(view: RecordsView, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("page") / "index.html"
    found.write_text(render_page(view, [], Path(), lambda key: None))
    return found


@pytest.fixture
def page(browser: "Browser", path: Path) -> Iterator["Page"]:
    with opened(browser, path) as found:
        yield found


def timed(
    benchmark: BenchmarkFixture, page: "Page", act: Callable[[int], tuple[str, str]], rounds: int
) -> None:
    """The browser's own milliseconds of an action that is another one in each round, in extra_info."""
    taken = []

    def once() -> None:
        what, done = act(len(taken))
        taken.append(page.evaluate(TIMED.format(act=what, done=done)))

    benchmark.pedantic(once, rounds=rounds)
    benchmark.extra_info["ms in the page"] = (
        pd.Series(taken).describe()[["min", "50%", "max"]].round(1).to_dict()
    )
    print(f"\n{benchmark.name}: {benchmark.extra_info}")


def test_build(benchmark: BenchmarkFixture, view: RecordsView) -> None:
    view.summary  # noqa: B018  (made beforehand: it is the report's)
    text = benchmark.pedantic(lambda: render_page(view, [], Path(), lambda key: None), rounds=1)
    assert len(view.summary) == ROWS
    benchmark.extra_info["MB"] = round(len(text) / 1e6, 1)
    print(f"\n{benchmark.extra_info}")


def test_first_row(benchmark: BenchmarkFixture, browser: "Browser", path: Path) -> None:
    def load() -> None:
        start = time.perf_counter()
        with opened(browser, path):  # which waits for a row
            taken.append(time.perf_counter() - start)

    taken: list[float] = []
    benchmark.pedantic(load, rounds=5)
    print(f"\nfirst row after {min(taken):.2f} to {max(taken):.2f} s")


def test_sort(benchmark: BenchmarkFixture, page: "Page") -> None:
    def act(i: int) -> tuple[str, str]:
        header = f"document.querySelectorAll('#board thead th')[{1 + i % 2}]"  # method, ipc
        return f"{header}.querySelector('.dt-column-order').click()", f"{header}.hasAttribute('aria-sort')"

    timed(benchmark, page, act, rounds=10)


def test_filter(benchmark: BenchmarkFixture, page: "Page") -> None:
    select = "document.querySelector('#filter-10')"  # evaluated on

    def act(i: int) -> tuple[str, str]:
        choose = f"{select}.selectedIndex = {1 + i}; {select}.dispatchEvent(new Event('change'))"
        done = f"location.hash.includes('net-w{1 + i}')"
        return choose, f"document.querySelector('#status').textContent === '40 rows' && {done}"

    timed(benchmark, page, act, rounds=10)


def test_search(benchmark: BenchmarkFixture, page: "Page") -> None:
    box = "document.querySelector('#search')"

    def act(i: int) -> tuple[str, str]:
        write = f"{box}.value = 'm{i:02}'; {box}.dispatchEvent(new Event('input'))"
        return write, f"{SHOWN}.textContent === 'm{i:02}'"

    timed(benchmark, page, act, rounds=10)


def test_open_the_first_row(benchmark: BenchmarkFixture, page: "Page") -> None:
    """Once: it unpacks all records."""
    timed(
        benchmark,
        page,
        lambda _: ("document.querySelector('.opener').click()", "document.querySelector('.inside')"),
        1,
    )
