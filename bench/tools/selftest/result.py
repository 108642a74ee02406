"""What a self-test found: parts of items, each with figures and perhaps a verdict; as tables and as rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from bench.core.io import write_atomic, writing
from bench.reporting.tables.render import markdown
from bench.reporting.tables.table import MISSING, Comparison, TableCell, TableColumn, short_number


@dataclass(frozen=True)
class Item:
    """One thing that was tried."""

    name: str
    figures: dict[str, float] = field(default_factory=dict)  # by name with unit
    passed: bool | None = None  # None: measured only
    note: str = ""

    @property
    def verdict(self) -> str:
        """In a word; empty for what was measured only."""
        return "" if self.passed is None else "pass" if self.passed else "FAIL"


@dataclass(frozen=True)
class Part:
    """Some items of one kind, and what their figures mean."""

    title: str
    items: list[Item]
    notes: list[str]


def part_table(part: Part) -> Comparison:
    """A row an item, a column a figure."""
    figures = list(dict.fromkeys(name for item in part.items for name in item.figures))
    noted = any(item.note for item in part.items)
    judged = any(item.passed is not None for item in part.items)
    columns = [TableColumn("item", left=True), *(TableColumn(name, rank=1) for name in figures)]
    columns += [TableColumn("verdict", left=True)] * judged + [TableColumn("note", left=True, rank=2)] * noted
    rows = [
        [
            TableCell(item.name),
            *(TableCell(_number(item.figures.get(name))) for name in figures),
            *[TableCell(item.verdict, bold=item.passed is False)] * judged,
            *[TableCell(item.note)] * noted,
        ]
        for item in part.items
    ]
    return Comparison(part.title, columns, [rows], part.notes, grouped=False)


def _number(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:.1e}" if 0 < abs(value) < 0.001 else short_number(value)


def figures_frame(parts: Sequence[Part]) -> pd.DataFrame:
    """A row a figure; an item without any has one row too."""
    rows = [
        (part.title, item.name, figure, value, item.verdict, item.note)
        for part in parts
        for item in part.items
        for figure, value in (item.figures or {"": float("nan")}).items()
    ]
    return pd.DataFrame(rows, columns=["part", "item", "figure", "value", "verdict", "note"])


def write_results(parts: Sequence[Part], made_by: Mapping[str, str], folder: Path) -> list[Path]:
    """Write selftest.md, selftest.csv and what they were made by; whole files, again after each part.

    Raises UserError if the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return [
            write_atomic(folder / "selftest.md", markdown([part_table(part) for part in parts])),
            write_atomic(
                folder / "selftest.csv", figures_frame(parts).to_csv(index=False, lineterminator="\n")
            ),
            write_atomic(folder / "versions.json", json.dumps(dict(made_by), indent=1) + "\n"),
        ]
