"""The page in a browser: sorting, filters, details, accessibility, and that nothing is requested."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.browser import opened
from helpers.cli import ddbench
from helpers.page import EVERY, choose, column, open_first, order, shown, wait_for_order
from helpers.record import make, write

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def test_every_row_is_there(page: "Page") -> None:
    page.get_by_label("entries per page").select_option("100")
    accuracies = [float(text.split()[0]) for text in column(page, "accuracy %")]
    assert accuracies == sorted(accuracies, reverse=True)
    assert len(accuracies) == 2 * (1 + 4 * 2) + 1  # architectures x (whole set + methods x ipc), and the run


def test_sorts_by_mouse_and_by_keyboard_by_value_not_by_text(page: "Page") -> None:
    order(page, "KiB").click()
    wait_for_order(page, "KiB", "descending")
    kib = [float(text.replace(",", "")) for text in column(page, "KiB")]
    assert kib == sorted(kib, reverse=True)
    assert kib[0] > 99 > kib[-1], "as texts these would stand otherwise"
    order(page, "method").focus()
    page.keyboard.press("Enter")
    wait_for_order(page, "method", "ascending")
    assert column(page, "method") == sorted(column(page, "method"))


def test_filters_alone_and_together_and_clears(page: "Page") -> None:
    everything = len(column(page, "method"))
    choose(page, "ipc", "10")
    assert set(column(page, "ipc")) == {"10", "all"}
    choose(page, "evaluated on", "mlp")
    assert set(column(page, "evaluated on")) == {"mlp"}
    page.get_by_label("search").fill("haba")
    assert column(page, "method") == ["haba ‡"]
    assert page.locator("#status").inner_text() == "1 row"
    page.get_by_role("button", name="Best covered").click()
    assert shown(page)["evaluated on"] == "convnet"
    for name in ("dataset", "ipc", "evaluated on", "protocol"):
        choose(page, name, "all")
    assert len(column(page, "method")) == everything


def test_search_finds_words_and_says_when_there_is_nothing(page: "Page") -> None:
    page.get_by_label("search").fill("herding mlp")
    assert set(column(page, "method")) == {"herding"}
    page.get_by_label("search").fill("no such thing")
    assert "No row fits" in page.locator("#board").inner_text()


def test_row_opens_to_what_it_is_made_of(page: "Page", site: Path) -> None:
    inside = open_first(page, "dm digits")
    records = [json.loads(path.read_text()) for path in (site.parent / "run/records").iterdir()]
    text = inside.inner_text()
    for record in records:
        (accuracy,) = record["accuracies"]
        seed = inside.locator("tr", has_text=record["key"]).inner_text()
        assert seed.split() == [
            str(record["seed"]),
            *2 * [f"{100 * accuracy:.1f}"],
            record["key"],
            record["artifact"],
        ]
        assert record["cost"]["device"] in text
    for part in (
        "steps",
        "mlp",
        records[0]["dataset_fingerprint"],
        records[0]["versions"]["torch"],
        "quick, version 1",
    ):
        assert part in text, part
    assert "ddbench run dm-digits-ipc2.yaml" in text
    picture = inside.locator("img")
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    assert "dm, ipc 2" in (picture.get_attribute("alt") or "")


def test_record_without_an_artifact_opens_without_a_picture(page: "Page") -> None:
    inside = open_first(page, "haba")
    assert inside.locator("table").count() == 2
    assert inside.locator("img").count() == 0


def test_row_opens_and_closes_by_keyboard(page: "Page") -> None:
    opener = page.locator(".opener").nth(1)
    assert opener.get_attribute("aria-expanded") == "false"
    opener.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".inside")
    assert opener.get_attribute("aria-expanded") == "true"
    page.keyboard.press("Space")
    page.wait_for_selector(".inside", state="detached")
    assert opener.get_attribute("aria-expanded") == "false"


def test_downloads_are_the_records_and_the_summary(page: "Page", site: Path) -> None:
    with page.expect_download() as download:
        page.get_by_role("button", name="All records").click()
    assert download.value.suggested_filename == "records.jsonl"
    lines = download.value.path().read_text().splitlines()
    files = [path for name in ("by_hand", "run") for path in (site.parent / name / "records").iterdir()]
    assert [json.loads(line) for line in lines] == [
        json.loads(path.read_text()) for path in sorted(files, key=lambda path: path.name)
    ]
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    assert download.value.path().read_bytes() == (site / "tables/summary.csv").read_bytes()


def test_addresses_lead_nowhere_but_into_the_page(page: "Page") -> None:
    open_first(page, "dm digits").wait_for()
    found = page.evaluate(
        "[...document.querySelectorAll('[href], [src]')].map(e => e.getAttribute('href') ?? e.src)"
    )
    elsewhere = ("https://arxiv.org/abs/", "https://github.com/")  # papers and codes, if one follows them
    assert all(address.startswith(("#", "data:", *elsewhere)) for address in found), found
    page.emulate_media(reduced_motion="reduce")  # else a click in the middle of a scroll ends it
    for link in page.locator("nav a").all():
        section = page.locator(f"section{link.get_attribute('href')}")
        assert section.count() == 1
        link.click()
        if section.locator("details.section").count():
            assert section.locator("details.section").evaluate("folded => folded.open")
        page.wait_for_function(
            "section => Math.abs(section.getBoundingClientRect().top) < 5 || scrollY + innerHeight >= "
            "document.documentElement.scrollHeight - 5",
            arg=section.element_handle(),
        )


def test_tables_and_figures_say_what_they_are(page: "Page") -> None:
    for table in page.locator("table.still").all():
        assert table.locator("caption").text_content()
        assert table.locator("thead th[scope=col]").count() == table.locator("thead th").count()
    figures = page.locator("figure img")
    assert figures.count() >= 2
    said = {(figure.get_attribute("alt") or "").split()[0] for figure in figures.all()}
    assert said == {"Plot:", "Picture:"}


def test_phone_needs_no_scrolling_sideways(browser: "Browser", site: Path) -> None:
    with opened(browser, site / "index.html", EVERY, viewport={"width": 390, "height": 844}) as page:
        open_first(page, "dm digits").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.locator(".inside pre").bounding_box()["width"] < 390  # type: ignore[index]


def test_names_are_text_whatever_they_hold(browser: "Browser", tmp_path: Path) -> None:
    """Records may come from others: no text of theirs may run or load anything, which `opened` checks."""
    evil = "<img src=x onerror=\"document.title='ran'\">&amp;</script><script>document.title='ran'</script>"
    fields = {"dataset": evil, "protocol": evil, "eval_arch": evil, "dataset_fingerprint": evil}
    record = make(evil, hyperparameters={evil: evil}, versions={evil: evil}, **fields)
    write(
        tmp_path, [record.model_copy(update={"key": "0123"}), make("dm").model_copy(update={"key": "4567"})]
    )
    assert ddbench("report", tmp_path, "--html").code == 0
    with opened(browser, tmp_path / "index.html") as page:
        title = page.title()
        choose(page, "dataset", evil)
        assert column(page, "method") == [evil]
        inside = open_first(page, "onerror amp")
        inside.wait_for()
        assert evil in inside.inner_text()
        assert page.locator("img[src=x]").count() == 0
        assert page.title() == title


def test_paper_cuts_nothing_off(browser: "Browser", site: Path) -> None:
    """On paper nothing can be scrolled: wide tables wrap, figures shrink."""
    with opened(browser, site / "index.html", viewport={"width": 718, "height": 1000}) as page:
        page.emulate_media(media="print")
        over = "(box) => [box.ariaLabel ?? box.innerText.slice(0, 40), box.scrollWidth - box.clientWidth]"
        boxes = page.evaluate(f"[...document.querySelectorAll('.scroll')].map({over})")
        assert len(boxes) > 5
        assert [(name, pixels) for name, pixels in boxes if pixels > 1] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 718


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser: "Browser", site: Path, scheme: str) -> None:
    """Contrast included."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    with opened(browser, site / "index.html", EVERY, color_scheme=scheme) as page:
        open_first(page, "dm digits").wait_for()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == GROUND[scheme]
        page.evaluate("document.querySelectorAll('details').forEach(folded => { folded.open = true; })")
        results = axe.Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


GROUND = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}
