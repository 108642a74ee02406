"""The summary table: methods by ipc, accuracy by evaluation architecture, and costs."""

# ruff: noqa: RUF001  (a table is set with real dashes and multiplication signs)

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.best import separate_rows
from bench.analysis.devices import LETTERS, SEPARATOR, device_letters
from bench.records.columns import Row
from bench.reporting.plots.accuracy_vs_ipc import accuracy_vs_ipc
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables import table
from bench.reporting.tables.table import (
    MISSING,
    Comparison,
    TableCell,
    TableColumn,
    number_range,
    percent_cell,
    short_number,
)

SEEDS_COMPARED = (3, 5, 10)  # for which the notes say what could be told


@dataclass(frozen=True)
class SummaryRow:
    """A row of the table: a method at one ipc, distilled on one architecture."""

    method: str
    distill_arch: str
    by_arch: dict[str, Row]  # rows of the summary by evaluation architecture, those that were run

    def values(self, name: str) -> list[Any]:
        """This column of the summary, for every architecture."""
        return [row[name] for row in self.by_arch.values()]

    @property
    def exempt(self) -> bool:
        """Whether this is the whole training set."""
        return all(self.values("exempt"))

    @property
    def over_budget(self) -> bool:
        """Whether it stores more than its ipc allows."""
        return not self.exempt and not all(self.values("within_budget"))


def _mean(entry: SummaryRow, name: str) -> float:
    values: list[float] = entry.values(name)
    return sum(values) / len(values)


def _seconds(name: str) -> Callable[[SummaryRow], str]:
    def read(entry: SummaryRow) -> str:
        marks = {table.cold_mark(row, name) for row in entry.by_arch.values()}
        return short_number(_mean(entry, name)) + max(marks)

    return read


def _runs(entry: SummaryRow) -> str:
    return f"{number_range(entry.values('n_seeds'))}×{number_range(entry.values('n_students'))}"


CostCell = tuple[TableColumn, Callable[[SummaryRow], str]]
COST_CELLS: list[CostCell] = [
    (TableColumn("seeds×students", rank=4), _runs),
    (
        TableColumn("stored ipc", rank=3),
        lambda e: short_number(max(e.values("ipc_equivalent"))).removesuffix(".0"),
    ),
    (TableColumn("stored KiB", rank=5), lambda e: short_number(max(e.values("stored_bytes")) / 1024)),
    (TableColumn("labels KiB", rank=12), lambda e: short_number(max(e.values("label_floats")) * 4 / 1024)),
    (TableColumn("teacher KiB", rank=11), lambda e: short_number(max(e.values("teacher_bytes")) / 1024)),
    (TableColumn("prepare s", rank=2), _seconds("prepare_s")),
    (TableColumn("teacher s", rank=8), _seconds("teacher_s")),
    (TableColumn("distill s", rank=1), _seconds("distill_s")),
    (TableColumn("bookkeeping s", rank=10), _seconds("bookkeeping_s")),
    (TableColumn("tune s", rank=9), _seconds("tune_s")),
    (TableColumn("evaluate s", rank=6), _seconds("evaluate_s")),
    (TableColumn("peak MiB", rank=7), lambda e: f"{max(e.values('peak_memory_bytes')) / 2**20:,.0f}"),
    (TableColumn("diverged"), lambda e: f"{sum(e.values('diverged')):,}"),
]
# left out where no row has any
RARE = {
    "labels KiB": "label_floats",
    **{"teacher KiB": "teacher_bytes", "teacher s": "teacher_s", "bookkeeping s": "bookkeeping_s"},
    **{"tune s": "tune_s", "diverged": "diverged"},
}


# --- the table ----------------------------------------------------------------------------------------------


def _entries(rows: list[Row], first: str) -> list[SummaryRow]:
    """The rows of one ipc, the best on the architecture `first` first, those without it last."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row["method"], row["distill_arch"]), {})[row["eval_arch"]] = row
    entries = [SummaryRow(method, arch, by_arch) for (method, arch), by_arch in found.items()]

    def order(entry: SummaryRow) -> tuple[float, str, str]:
        row = entry.by_arch.get(first)
        return (-row["accuracy_mean"] if row else 1.0, entry.method, entry.distill_arch)

    return sorted(entries, key=order)


def _cost_cells(rows: list[Row]) -> list[CostCell]:
    """The columns of costs that say something about these rows."""
    empty = {header for header, name in RARE.items() if not any(row[name] > 0 for row in rows)}
    found = [(column, read) for column, read in COST_CELLS if column.header not in empty]
    letters = device_letters(row["device"] for row in rows)

    def device(entry: SummaryRow) -> str:
        names = {one for text in entry.values("device") for one in text.split(SEPARATOR)}
        return ", ".join(sorted(letters[name] for name in names))

    return [*found, (TableColumn("device", rank=2), device)] if letters else found


def _cells(
    entry: SummaryRow, ipc: str, archs: list[str], distilled: bool, costs: list[CostCell]
) -> list[TableCell]:
    mark = table.budget_mark(exempt=entry.exempt, over_budget=entry.over_budget)
    cells = [TableCell(ipc), TableCell(entry.method + mark)]
    if distilled:
        cells.append(table.distilled_on_cell(entry.distill_arch))
    for arch in archs:
        row = entry.by_arch.get(arch)
        cells.append(
            TableCell(percent_cell(row, "accuracy"), bool(row["best"])) if row else TableCell(MISSING)
        )
    return cells + [TableCell(text(entry)) for _, text in costs]


def _notes(rows: list[Row], entries: list[SummaryRow], protocol: str) -> list[str]:
    """What the numbers are, and each mark that occurs."""
    notes = [
        f"Accuracy in percent under protocol {protocol}, students averaged first; {table.INTERVAL}.",
        *power_notes(rows),
    ]
    if any(entry.exempt for entry in entries):
        notes.append(table.EXEMPT)
    if any(entry.over_budget for entry in entries):
        notes.append(table.OVER_BUDGET)
    if any(row["diverged"] > 0 for row in rows):
        notes.append("Diverged: students of all seeds whose predictions are not finite; scored as they are.")
    letters = device_letters(row["device"] for row in rows)
    devices = "; ".join(f"{letter}: {name}" for name, letter in letters.items()) or rows[0]["device"]
    several = ", evaluate s is the mean over architectures" if len({r["eval_arch"] for r in rows}) > 1 else ""
    notes.append(f"KiB at fp32; seconds on {devices}{several}.")
    if letters:
        notes.append(LETTERS)
    if not all(row["exclusive"] for row in rows):
        notes.append("Jobs ran side by side on the device: their seconds compare only roughly.")
    return notes + table.cold_notes(rows)


def power_notes(rows: list[Row]) -> list[str]:
    """What bold says, and which differences these seeds, and other numbers of seeds, can show."""
    fair = [row for row in rows if row["competes"]]
    if not fair:
        return []
    if all(row["n_seeds"] == 1 for row in fair):
        return ["One seed each: nothing is told apart, nothing is bold."]
    groups: dict[tuple[int, str], list[Row]] = {}
    for row in fair:
        groups.setdefault((int(row["ipc"]), row["eval_arch"]), []).append(row)
    compared = [group for group in groups.values() if len(group) > 1]
    if not compared:
        return [table.BOLD]
    found = _points([group[0]["least_difference"] for group in compared])
    others = [n for n in SEEDS_COMPARED if any(row["n_seeds"] != n for row in fair)]
    more = [f"{_points([_told(group, n) for group in compared])} with {n}" for n in others]
    return [
        table.BOLD,
        f"Differences under {found} points cannot be told here; with other numbers of seeds for all and the "
        f"same spread: {', '.join(more)}.",
    ]


def _told(rows: list[Row], seeds: int) -> float:
    """The difference that would be told between these results if each had so many seeds."""
    numbers = np.array([[row["accuracy_mean"], row["accuracy_std"], row["n_seeds"]] for row in rows])
    separation = separate_rows(numbers, seeds)
    return np.nan if separation is None else separation.least_difference


def _points(fractions: list[float]) -> str:
    """`1.7`, or `1.7 to 5.7` over several groups, in points."""
    low, high = (f"{100 * end:.1f}" for end in (min(fractions), max(fractions)))
    return low if low == high else f"{low} to {high}"


def _comparison(rows: list[Row], dataset: str, protocol: str) -> Comparison:
    distilled = table.distillation_architectures(rows)
    archs = table.familiar_first({row["eval_arch"] for row in rows}, distilled)
    costs = _cost_cells(rows)
    grouped = {ipc: _entries(group, archs[0]) for ipc, group in table.rows_by_ipc(rows).items()}
    groups = [
        [_cells(entry, ipc, archs, len(distilled) > 1, costs) for entry in group]
        for ipc, group in grouped.items()
    ]
    columns = [TableColumn("ipc"), TableColumn("method", left=True)]
    columns += [TableColumn("distilled on", left=True)] if len(distilled) > 1 else []
    columns += [TableColumn(arch, left=True, accuracy=True) for arch in archs]
    columns += [column for column, _ in costs]
    title = table.table_title(dataset, protocol, distilled)
    entries = [entry for group in grouped.values() for entry in group]
    return Comparison(title, columns, groups, _notes(rows, entries, protocol))


def summary_tables(summary: pd.DataFrame) -> list[Comparison]:
    """A table for every data set and protocol, from the frame of `aggregate.summary_frame`."""
    return [
        _comparison(rows, dataset, protocol)
        for dataset, protocol, _, rows in table.by_dataset_and_protocol(summary)
    ]


def summary_section(view: RecordsView) -> Section:
    """The comparison tables; accuracy by images per class, where there are several."""
    summary = view.summary
    several = summary["ipc"].nunique() > 1
    return Section(
        "summary",
        summary,
        summary_tables(summary),
        {"accuracy_vs_ipc": lambda: accuracy_vs_ipc(summary)} if several else {},
        printed=True,
    )
