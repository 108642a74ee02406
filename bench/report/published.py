"""Measured less published, with the source of each figure and what differs in how it was made."""

# ruff: noqa: RUF001  (a table is set with real dashes and multiplication signs)

from collections.abc import Iterable
from string import ascii_lowercase

import pandas as pd

from bench import published
from bench.report import layout
from bench.report.exhibit import Exhibit, View
from bench.report.layout import MISSING, Cell, Column, Comparison, Reader, Row, percent, points


def _letters(texts: Iterable[str]) -> dict[str, str]:
    """a, b, ... z, aa, ab, ... by text, in order of first appearance; none for no text."""
    distinct = [text for text in dict.fromkeys(texts) if text]
    n = len(ascii_lowercase)
    return {
        text: ascii_lowercase[i // n - 1] * (i >= n) + ascii_lowercase[i % n]
        for i, text in enumerate(distinct)
    }


def _published(row: Row) -> Cell:
    deviation = row["accuracy_std_published"]
    text = f"{100 * row['accuracy_mean_published']:.1f}"
    return Cell(text if pd.isna(deviation) else f"{text} ± {100 * deviation:.1f}")


def _difference(row: Row) -> Cell:
    """With the interval of what was measured: nobody knows that of what was published."""
    mean, low, high = (
        row[f"accuracy_{end}"] - row["accuracy_mean_published"] for end in ("mean", "ci_low", "ci_high")
    )
    return Cell(points(mean, low, high, signed=True))


def _lettered(letters: dict[str, dict[str, str]], name: str) -> Reader:
    """Every difference of a row by its letter; numbers for sources."""
    return lambda row: Cell(", ".join(sorted(letters[name][text] for text in _parts(row, name))) or MISSING)


def _parts(row: Row, name: str) -> list[str]:
    return [text for text in str(row[name]).split("; ") if text] if name == "differs" else [str(row[name])]


def _comparison(dataset: str, protocol: str, rows: list[Row]) -> Comparison:
    sources = dict.fromkeys(row["source"] for row in rows)
    letters = {
        "differs": _letters(text for row in rows for text in _parts(row, "differs")),
        "source": {source: str(i) for i, source in enumerate(sources, start=1)},
    }
    distilled = layout.distilled_on(rows)
    columns = [
        *layout.who(distilled),
        (Column("evaluated on", left=True, rank=1), lambda row: Cell(row["eval_arch"])),
        (Column("measured", left=True), lambda row: Cell(percent(row, "accuracy"))),
        (Column("published", left=True), _published),
        (Column("measured − published", left=True), _difference),
        (Column("source"), _lettered(letters, "source")),
        (Column("differs in", left=True), _lettered(letters, "differs")),
    ]
    notes = [
        "Percent and points; [low, high]: 95 % bootstrap interval over the distillation seeds of what was "
        "measured, none below 3. A row for each source of a published figure: sources disagree.",
        *(f"{letter}: {text}." for text, letter in letters["differs"].items()),
        *(f"{number}: {text}." for text, number in letters["source"].items()),
        *layout.mark_notes(rows),
    ]
    title = f"Against published figures: {layout.title(dataset, protocol, distilled)}"
    return layout.lay_out(title, columns, rows, notes)


def exhibit(view: View) -> Exhibit | None:
    """A table for each data set and protocol with a cell for which there is a published figure."""
    found = published.match(view.flat, view.summary)
    tables = [_comparison(dataset, protocol, rows) for dataset, protocol, _, rows in layout.sections(found)]
    return Exhibit("published", found, tables) if tables else None
