"""The views of the page: one cell at a time, in its address, compared, copied."""

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from helpers.browser import opened
from helpers.page import choose, column, headers, order, shown, wait_for_order

from bench.core.registry import method_class, method_names
from bench.reporting.html.page import PAGE_FILES as FILES

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


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
