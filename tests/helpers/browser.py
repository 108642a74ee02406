"""Chromium without a window, for the tests of the page; they are skipped where it, or playwright, is not."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
INSIDE = ("file:", "data:", "blob:")


@contextmanager
def chromium() -> Iterator["Browser"]:
    """A browser, or a skipped test that says what is missing."""
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
def opened(browser: "Browser", path: Path, **context: Any) -> Iterator["Page"]:
    """The page in a window of its own; at the end it has said nothing and asked nobody."""
    window = browser.new_context(**{"viewport": {"width": 1440, "height": 1000}, **context})
    page, said, asked = window.new_page(), list[str](), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("#board tbody th")
    try:
        yield page
        assert said == []
        assert [url for url in asked if not url.startswith(INSIDE)] == []
    finally:
        window.close()
