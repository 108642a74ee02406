"""The page in a browser: sorting, filters, details, accessibility, and that nothing is requested."""

# ruff: noqa: RUF001  (a table is set with real dashes and multiplication signs)

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from helpers.browser import chromium, opened
from helpers.cli import ddbench, run_inline, sweep_file
from helpers.record import make, sweep, write

from bench.core.registry import method_class, method_names
from bench.reporting.html.page import PAGE_FILES as FILES

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

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


def test_opens_on_the_best_covered_cell_with_reference_lines_first(first: "Page") -> None:
    assert shown(first) == {
        "dataset": "shapes",
        "ipc": "1",
        "evaluated on": "convnet",
        "protocol": "quick",
        "method": "all",
    }
    assert column(first, "method") == ["full †", "random_real", "haba ‡", "dm", "herding"]
    assert column(first, "rank")[:2] == ["—", "—"]
    assert not {"dataset", "ipc", "evaluated on", "protocol"} & set(headers(first))
    same = first.locator("#same").inner_text()
    for part in ("dataset shapes", "ipc 1", "evaluated on convnet", "protocol quick"):
        assert part in same


def test_the_address_holds_the_view_and_leads_back_to_it(
    first: "Page", browser: "Browser", site: Path
) -> None:
    choose(first, "ipc", "10")
    order(first, "KiB").click()
    wait_for_order(first, "KiB", "descending")
    address = first.evaluate("location.hash")
    with opened(browser, site / "index.html", address) as again:
        assert shown(again) == shown(first)
        assert column(again, "method") == column(first, "method")
        assert column(again, "method")[:3] == ["full †", "random_real", "haba ‡"]


def test_where_nothing_was_measured_the_nearest_cell_is_shown(first: "Page") -> None:
    """The run has ipc 2 alone, and shapes have none."""
    choose(first, "dataset", "digits")
    assert (shown(first)["dataset"], shown(first)["ipc"], column(first, "method")) == ("digits", "2", ["dm"])
    choose(first, "ipc", "10")
    assert (shown(first)["dataset"], shown(first)["ipc"]) == ("shapes", "10")


def test_a_method_has_all_its_cells_in_one_view(first: "Page") -> None:
    choose(first, "method", "dm")
    assert set(column(first, "method")) == {"dm"}
    assert set(column(first, "dataset")) == {"shapes", "digits"}
    assert set(column(first, "ipc")) == {"1", "2", "10"}
    choose(first, "method", "all")
    assert "dataset" not in headers(first)


def test_every_method_with_a_paper_links_to_it_and_to_its_code() -> None:
    with (FILES.parent / "papers.csv").open(newline="") as file:
        known = {row["method"]: row for row in csv.DictReader(file)}
    papers = {name: method_class(name).paper for name in method_names()}
    without = ("baseline: ", "ddbench: ")
    assert known.keys() == {name for name, paper in papers.items() if not paper.startswith(without)}
    for name, row in known.items():
        assert row["year"] in papers[name], name
        assert re.fullmatch(r"\d{4}\.\d{5}", row["arxiv"]), name
        assert re.fullmatch(r"([\w-]+/[\w-]+)?", row["code"]), name


def test_a_name_stands_beside_its_paper(first: "Page") -> None:
    links = first.locator("#board tbody tr", has_text="dm").first.locator("a.paper")
    assert [link.get_attribute("href") for link in links.all()] == [
        "https://arxiv.org/abs/2110.04181",
        "https://github.com/VICO-UoE/DatasetCondensation",
    ]


def test_columns_can_be_chosen(first: "Page") -> None:
    first.locator(".menu > summary", has_text="Columns").click()
    first.get_by_label("peak MiB", exact=True).check()
    first.get_by_label("KiB", exact=True).uncheck()
    assert "peak MiB" in headers(first)
    assert "KiB" not in headers(first)
    assert "columns=" in first.evaluate("location.hash")


def test_views_are_copied_as_they_stand(first: "Page", tmp_path: Path) -> None:
    def copied(kind: str) -> str:
        first.get_by_role("button", name=f"as {kind}").click()
        return first.get_by_label(f"This view as {kind}").input_value()

    first.locator(".menu > summary", has_text="Copy").click()
    names = headers(first)[1:]
    lines = copied("Markdown").splitlines()
    assert lines[0] == f"| {' | '.join(names)} |"
    assert len(lines) == 2 + len(column(first, "method"))
    assert copied("CSV").splitlines()[0] == ",".join(names)
    assert "random\\_real" in copied("LaTeX")
    sweep_text = copied("sweep")
    (tmp_path / "view.yaml").write_text(sweep_text.split("<<'END'\n")[1].split("\nEND")[0])
    view = yaml.safe_load((tmp_path / "view.yaml").read_text())
    assert {entry["name"] for entry in view["methods"]} == {"full", "random_real", "herding", "dm", "haba"}
    assert (view["ipc"], view["distill"]["seeds"]) == ([1], [0, 1, 2])


def test_ticked_rows_are_compared_side_by_side(first: "Page") -> None:
    first.get_by_role("checkbox", name="Compare dm").check()
    first.get_by_role("checkbox", name="Compare herding").check()
    first.locator("#compare-menu > summary").click()
    first.get_by_role("button", name="Compare the ticked rows").click()
    first.wait_for_selector("#compared .inside")
    text = first.locator("#compared").inner_text()
    assert first.locator("#compared thead th").all_inner_texts() == ["", "dm", "herding"]
    for part in ("seeds: %", "points over dm", "operations", "images"):
        assert part in text


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
