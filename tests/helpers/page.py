"""The page of a report in a browser: what is chosen on it, and what it shows."""

# ruff: noqa: RUF001  (a table is set with real multiplication signs)

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

HEADERS = [
    "details",
    "method",
    "rank",
    "accuracy %",
    "over random",
    "KiB",
    "seconds",
    "operations",
    "seeds × students",
    "dataset",
    "ipc",
    "evaluated on",
    "protocol",
    "distilled on",
    "budget",
    "stored ipc",
    "prepare s",
    "distill s",
    "evaluate s",
    "peak MiB",
]
EVERY = "#dataset=all&ipc=all&evaluated on=all&protocol=all"


def go(page: "Page", address: str) -> None:
    page.evaluate("address => { location.hash = address; }", address)
    page.wait_for_function("decodeURIComponent(location.hash).replaceAll('+', ' ').includes('dataset=')")
    page.wait_for_timeout(50)


def headers(page: "Page") -> list[str]:
    """Of the columns that are shown; the first has none."""
    return [
        text.replace("\n", " ").strip()
        for text in page.locator("#board thead th .dt-column-title").all_inner_texts()
    ]


def column(page: "Page", name: str) -> list[str]:
    """The texts of a column on the current page of the table, from the top."""
    at = headers(page).index(name)
    texts = page.locator(f"#board > tbody > tr > :nth-child({1 + at})").all_inner_texts()
    return [re.sub(r" \d{4}( code)?$", "", text) for text in texts] if name == "method" else texts


def shown(page: "Page") -> dict[str, str]:
    """What is chosen above the table."""
    names = ("dataset", "ipc", "evaluated on", "protocol", "method")
    return {
        name: filters(page).get_by_label(name, exact=True).input_value().removeprefix("=") for name in names
    }


def filters(page: "Page") -> "Locator":
    return page.locator(".filters > div")


def choose(page: "Page", name: str, value: str) -> None:
    filters(page).get_by_label(name, exact=True).select_option(label=value)


def order(page: "Page", name: str) -> "Locator":
    """The button in a column's header that sorts by it."""
    return page.locator("#board thead th", has_text=name).locator(".dt-column-order")


def wait_for_order(page: "Page", name: str, direction: str) -> None:
    page.locator(f"#board thead th[aria-sort={direction}]", has_text=name).wait_for()


def open_first(page: "Page", search: str) -> "Locator":
    page.get_by_label("search").fill(search)
    page.locator(".opener").first.click()
    page.wait_for_selector(".inside")  # what is in it has to be unpacked first
    return page.locator(".inside")
