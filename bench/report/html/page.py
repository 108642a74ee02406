"""The page: one file that opens from the disk and asks nobody for anything."""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from bench.report.html import leaderboard
from bench.report.html.embedded import pack, record_lines
from bench.report.sections import RecordsView, Section
from bench.report.tables.table import EXEMPT, OVER_BUDGET, Comparison, TableCell

PAGE_FILES = Path(__file__).parent / "assets"
MOST_TABLE_ROWS = 200  # of a table outside the leaderboard: a page of tens of thousands of cells is slow
MOST_PICTURES = 200

Picture = Callable[[str], bytes | None]  # of an artifact, as a small PNG; None where there is none


@dataclass(frozen=True)
class Figure:
    """A plot, as the address of an image that is its own content."""

    address: str
    alt: str


@dataclass(frozen=True)
class PageSection:
    """One exhibit."""

    anchor: str
    heading: str
    figures: list[Figure]
    tables: list[Comparison]


def render_page(view: RecordsView, exhibits: Sequence[Section], plots: Path, picture: Picture) -> str:
    """The page of these exhibits, whose plots are drawn already in the folder `plots`."""
    entries = leaderboard.leaderboard_rows(view)
    keys = sorted(view.flat["key"])
    position = {key: i for i, key in enumerate(keys)}
    specs = leaderboard.dataset_specs(entries, view.folders)
    details = [
        {
            "label": entry.label,
            "records": [position[record["key"]] for record in entry.records],
            "command": leaderboard.row_command(entry, specs),
        }
        for entry in entries
    ]
    return _template().render(
        counts=_counts(view, len(entries)),
        columns=leaderboard.LEADERBOARD_COLUMNS,
        notes=_notes(view),
        sections=[
            _section(shown, plots) for shown in exhibits if shown.comparisons or shown.plots or shown.pictures
        ],
        rows=[entry.cells for entry in entries],
        details=pack(_lines(map(json.dumps, details))),
        records=pack(_lines(record_lines(keys, view.folders))),
        csv=pack(view.summary.to_csv(index=False, float_format="%.6g", lineterminator="\n")),
        pictures=_pictures(entries, picture),
        style=_part("page.css"),
        library=_part("vendor/datatables.min.js"),
        script=_part("page.js"),
    )


def _template() -> Template:
    return Environment(
        loader=FileSystemLoader(PAGE_FILES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("page.html.jinja")


def _part(name: str) -> str:
    return (PAGE_FILES / name).read_text(encoding="utf-8")


def _lines(lines: Any) -> str:
    return "\n".join(lines)


def _counts(view: RecordsView, rows: int) -> list[tuple[str, str]]:
    """How much there is of what."""
    flat = view.flat
    counted = {
        "records": len(flat),
        "rows": rows,
        "methods": flat["method"].nunique(),
        "data sets": flat["dataset"].nunique(),
        "protocols": flat["protocol"].nunique(),
        "networks": flat["eval_arch"].nunique(),
    }
    return [(name if n != 1 else name.removesuffix("s"), f"{n:,}") for name, n in counted.items()]


def _notes(view: RecordsView) -> list[str]:
    """What the figures and the marks are."""
    notes = [
        "Accuracy in percent, students averaged first; [low, high]: 95 % bootstrap interval over the "
        "distillation seeds, ±: standard deviation of two; no interval is claimed below three seeds.",
        "Rows compare where data set, protocol, network and storage agree.",
        EXEMPT,
        OVER_BUDGET,
    ]
    shared = not view.summary["exclusive"].all()
    side = ["Some jobs ran side by side on their device: their seconds compare only roughly."]
    return notes + (side if shared else [])


# --- the other exhibits -------------------------------------------------------------------------------------


def _section(shown: Section, plots: Path) -> PageSection:
    heading = shown.stem.replace("_", " ").capitalize()
    where = "the tables of this section have" if shown.comparisons else "the records have"
    figures = [
        Figure(_address(plots, name), f"Plot: {name.replace('_', ' ')}; {where} its numbers.")
        for name in shown.plots
        if (plots / f"{name}.png").exists()  # else it would have been too much
    ]
    figures += [
        Figure(_data("png", plots / f"{name}.png"), f"Picture: {name.replace('_', ' ')}")
        for name in shown.pictures
    ]
    return PageSection(f"of-{shown.stem}", heading, figures, list(map(_cut, shown.comparisons)))


def _address(plots: Path, name: str) -> str:
    """The smaller of the two files of a plot."""
    kinds = {"svg+xml": plots / f"{name}.svg", "png": plots / f"{name}.png"}
    kind, path = min(kinds.items(), key=lambda item: item[1].stat().st_size)
    return _data(kind, path)


def _data(kind: str, path: Path) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _cut(table: Comparison) -> Comparison:
    """Its first rows, with a note that says so."""
    n = sum(map(len, table.groups))
    if n <= MOST_TABLE_ROWS:
        return table
    left, groups = MOST_TABLE_ROWS, list[list[list[TableCell]]]()
    for group in table.groups:
        groups += [group[:left]] if left else []
        left -= len(group[:left])
    note = f"The first {MOST_TABLE_ROWS} of {n:,} rows: all are in the table's files beside this page."
    return Comparison(table.title, table.columns, groups, [*table.notes, note])


def _pictures(entries: Sequence[leaderboard.LeaderboardRow], picture: Picture) -> dict[str, str]:
    """By artifact, of the lowest seed of each row, until there are enough."""
    found: dict[str, str] = {}
    for key in dict.fromkeys(entry.lowest["artifact"] for entry in entries):
        if len(found) < MOST_PICTURES and (png := picture(key)) is not None:
            found[key] = base64.b64encode(png).decode()
    return found
