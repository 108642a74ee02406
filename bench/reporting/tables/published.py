"""Measured accuracies against published ones: their sources, and what differs in how they were measured."""

# ruff: noqa: RUF001  (a table is set with real dashes and multiplication signs)

from collections.abc import Iterable
from string import ascii_lowercase

import pandas as pd

from bench.analysis import published
from bench.records.columns import Row
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables import table
from bench.reporting.tables.table import (
    MISSING,
    Comparison,
    Reader,
    TableCell,
    TableColumn,
    percent_cell,
    percent_points,
)


def _letters(texts: Iterable[str]) -> dict[str, str]:
    """Name each text by a letter, a to z, then aa, ab, ..., in order of first appearance."""
    distinct = [text for text in dict.fromkeys(texts) if text]
    pairs = (first + second for first in ["", *ascii_lowercase] for second in ascii_lowercase)
    return dict(zip(distinct, pairs, strict=False))


def _published(row: Row) -> TableCell:
    deviation = row["accuracy_std_published"]
    text = f"{100 * row['accuracy_mean_published']:.1f}"
    return TableCell(text if pd.isna(deviation) else f"{text} ± {100 * deviation:.1f}")


def _difference(row: Row) -> TableCell:
    """With the interval of the measured accuracy only: that of the published one is unknown."""
    mean, low, high = (
        row[f"accuracy_{end}"] - row["accuracy_mean_published"] for end in ("mean", "ci_low", "ci_high")
    )
    return TableCell(percent_points(mean, low, high, signed=True))


def _lettered(letters: dict[str, dict[str, str]], name: str) -> Reader:
    """The letters of the differences of a row, or the number of its source."""
    return lambda row: TableCell(
        ", ".join(sorted(letters[name][text] for text in _parts(row, name))) or MISSING
    )


def _parts(row: Row, name: str) -> list[str]:
    """The texts of a column: several differences, or one source."""
    return [text for text in str(row[name]).split("; ") if text] if name == "differs" else [str(row[name])]


def _comparison(dataset: str, protocol: str, rows: list[Row]) -> Comparison:
    sources = dict.fromkeys(row["source"] for row in rows)
    letters = {
        "differs": _letters(text for row in rows for text in _parts(row, "differs")),
        "source": {source: str(i) for i, source in enumerate(sources, start=1)},
    }
    distilled = table.distillation_architectures(rows)
    columns = [
        *table.method_columns(distilled),
        (TableColumn("evaluated on", left=True, rank=1), lambda row: TableCell(row["eval_arch"])),
        (TableColumn("measured", left=True), lambda row: TableCell(percent_cell(row, "accuracy"))),
        (TableColumn("published", left=True), _published),
        (TableColumn("measured − published", left=True), _difference),
        (TableColumn("source"), _lettered(letters, "source")),
        (TableColumn("differs in", left=True), _lettered(letters, "differs")),
    ]
    notes = [
        "Percent and points; [low, high]: 95 % interval of the mean over the distillation seeds of what "
        "was measured (Student's t, from 3 seeds on). A row for each source of a published figure: sources "
        "disagree.",
        *(f"{letter}: {text}." for text, letter in letters["differs"].items()),
        *(f"{number}: {text}." for text, number in letters["source"].items()),
        *table.mark_notes(rows),
    ]
    title = f"Against published figures: {table.table_title(dataset, protocol, distilled)}"
    return table.table_by_ipc(title, columns, rows, notes)


def published_section(view: RecordsView) -> Section | None:
    """A table for each data set and protocol with a cell for which an accuracy was published."""
    found = published.match_published(view.flat, view.summary)
    tables = [
        _comparison(dataset, protocol, rows)
        for dataset, protocol, _, rows in table.by_dataset_and_protocol(found)
    ]
    return Section("published", found, tables) if tables else None
