"""The page of a report: one HTML file that opens from the disk and loads nothing from a network."""

import base64
import csv
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from PIL import Image

from bench.analysis.devices import several_devices
from bench.reporting.html import leaderboard
from bench.reporting.html.embedded import pack, record_lines
from bench.reporting.notes import dataset_notes
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables.table import (
    ACCURACY,
    EXEMPT,
    OVER_BUDGET,
    RANK,
    Comparison,
    TableCell,
    cold_notes,
    frame_rows,
)

PAGE_FILES = Path(__file__).parent / "assets"
MOST_TABLE_ROWS = 200  # of a table outside the leaderboard: a page of tens of thousands of cells is slow
MOST_PICTURES = 200
SCRIPTS = ("common.js", "details.js", "board.js", "actions.js")  # one after the other in one scope
PIXELS = 4 / 3  # of a point

Picture = Callable[[str], bytes | None]  # artifact key -> a small PNG, or None


@dataclass(frozen=True)
class Figure:
    """A plot or picture, embedded."""

    address: str  # a data: URL
    alt: str
    width: int  # pixels of the page, kept free for it before it is there
    height: int


@dataclass(frozen=True)
class PageSection:
    """A section of the report, for the template."""

    anchor: str
    heading: str
    figures: list[Figure]
    tables: list[Comparison]


def render_page(view: RecordsView, sections: Sequence[Section], plots: Path, picture: Picture) -> str:
    """Render the page of a report.

    Args:
        view: The records.
        sections: What the report shows.
        plots: The folder in which the plots and pictures of the sections are drawn already.
        picture: Draws an artifact for the details of a row.

    Returns:
        HTML.
    """
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
            _page_section(section, plots)
            for section in sections
            if section.comparisons or section.plots or section.pictures
        ],
        papers=_papers(view),
        rows=[[*entry.cells, int(entry.reference)] for entry in entries],
        views=pack(_lines(map(json.dumps, leaderboard.view_commands(entries, specs)))),
        details=pack(_lines(map(json.dumps, details))),
        records=pack(_lines(record_lines(keys, view.folders))),
        csv=pack(view.summary.to_csv(index=False, float_format="%.6g", lineterminator="\n")),
        pictures=_pictures(entries, picture),
        style=_part("page.css"),
        library=_part("vendor/datatables.min.js"),
        script="".join(map(_part, SCRIPTS)),
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
    """What the records hold, as (name, number) for the head of the page."""
    flat = view.flat
    counted = {
        "records": len(flat),
        "rows": rows,
        "methods": flat["method_name"].nunique(),
        "settings": flat["method"].nunique(),
        "data sets": flat["dataset"].nunique(),
        "protocols": flat["protocol"].nunique(),
        "networks": flat["eval_arch"].nunique(),
    }
    return [(name if n != 1 else name.removesuffix("s"), f"{n:,}") for name, n in counted.items()]


def _papers(view: RecordsView) -> dict[str, list[str]]:
    """Year, arXiv number and repository of the papers of these methods, by name."""
    with (Path(__file__).parent / "papers.csv").open(newline="") as file:
        known = {row["method"]: [row["year"], row["arxiv"], row["code"]] for row in csv.DictReader(file)}
    return {name: known[name] for name in sorted(set(view.flat["method_name"])) if name in known}


def _notes(view: RecordsView) -> list[str]:
    """What the numbers and the marks mean."""
    notes = [
        ACCURACY,
        RANK,
        "The bar goes from random images to the whole training set, with the interval on it. over random: "
        "points.",
        f"seconds, operations: of a set with its prerequisites and the teacher of its labels; "
        f"{leaderboard.FRONT}: nothing that competes is better and cheaper.",
        "Random images and the whole set are reference lines: they stand first, and have no rank here.",
        EXEMPT,
        OVER_BUDGET,
        *dataset_notes(view).values(),
    ]
    if not view.summary["exclusive"].all():
        notes.append("Some jobs ran side by side on their device: their seconds compare only roughly.")
    notes += several_devices(view.summary["device"])
    return notes + cold_notes(frame_rows(view.summary))


# --- the other sections -------------------------------------------------------------------------------------


def _page_section(section: Section, plots: Path) -> PageSection:
    heading = section.stem.replace("_", " ").capitalize()
    where = "the tables of this section have" if section.comparisons else "the records have"
    figures = [
        _figure(_smaller(plots, name), f"Plot: {name.replace('_', ' ')}; {where} its numbers.")
        for name in section.plots
        if (plots / f"{name}.png").exists()  # not where it was too much for a figure
    ]
    figures += [
        _figure(plots / f"{name}.png", f"Picture: {name.replace('_', ' ')}") for name in section.pictures
    ]
    return PageSection(f"of-{section.stem}", heading, figures, list(map(_cut, section.comparisons)))


def _smaller(plots: Path, name: str) -> Path:
    """The smaller of the two files of a plot."""
    return min((plots / f"{name}.{kind}" for kind in ("svg", "png")), key=lambda path: path.stat().st_size)


def _figure(path: Path, alt: str) -> Figure:
    content = path.read_bytes()
    if path.suffix == ".png":
        with Image.open(path, formats=["PNG"]) as image:
            width, height = image.size
    else:
        size = dict(re.findall(rb'\b(width|height)="([\d.]+)pt"', content[:2000]))
        width, height = (round(float(size[side]) * PIXELS) for side in (b"width", b"height"))
    kind = {".png": "png", ".svg": "svg+xml"}[path.suffix]
    return Figure(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", alt, width, height)


def _cut(table: Comparison) -> Comparison:
    """The first rows of a long table, with a note that says so."""
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
    """Pictures by artifact key: the lowest seed of each row, at most `MOST_PICTURES`."""
    found: dict[str, str] = {}
    for key in dict.fromkeys(entry.lowest["artifact"] for entry in entries):
        if len(found) < MOST_PICTURES and (png := picture(key)) is not None:
            found[key] = base64.b64encode(png).decode()
    return found
