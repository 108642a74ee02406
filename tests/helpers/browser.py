"""Headless Chromium for the tests of the page; they are skipped if it or playwright is not installed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
INSIDE = ("file:", "data:", "blob:")


@contextmanager
def chromium() -> Iterator["Browser"]:
    """Start a browser, or skip the test and say what is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium in the PATH")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: "Browser", path: Path, address: str = "", **context: Any) -> Iterator["Page"]:
    """Open a page at an address inside it, `#...`, in its own window; check at the end that it logged "
    "nothing and requested nothing."""
    window = browser.new_context(**{"viewport": {"width": 1440, "height": 1000}, **context})
    page, logged, requested = window.new_page(), list[str](), list[str]()
    page.on("console", lambda message: logged.append(message.text))
    page.on("pageerror", lambda error: logged.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(path.as_uri() + address)
    page.wait_for_selector("#board tbody th")
    try:
        yield page
        assert logged == []
        assert [url for url in requested if not url.startswith(INSIDE)] == []
    finally:
        window.close()
