"""What a table is made of: rows, columns, cells, and numbers as text."""

# ruff: noqa: RUF001  (a table is set with real dashes and multiplication signs)

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, count
from typing import cast

import pandas as pd

from bench.records.columns import Row

MISSING = "—"
NO_NETWORK = "–"
LONGEST_NAME = 120  # characters; file systems take 255 bytes
EXEMPT = "† the whole training set: the ceiling, exempt from the budget."
OVER_BUDGET = "‡ stores more than its ipc allows: not a comparison at equal storage."
ACCURACY = (
    "Accuracy in percent, students averaged first; [low, high]: 95 % bootstrap interval over distillation "
    "seeds, none below 3."
)
Reader = Callable[[Row], "TableCell"]


@dataclass(frozen=True)
class TableColumn:
    header: str
    left: bool = False  # text and accuracies start at the left, other numbers end at the right
    rank: int = 0  # a narrow terminal drops the highest rank first, and never 0
    accuracy: bool = False


@dataclass(frozen=True)
class TableCell:
    text: str
    bold: bool = False


@dataclass(frozen=True)
class Comparison:
    """One table: what was scored on one dataset under one protocol."""

    title: str
    columns: list[TableColumn]
    groups: list[list[list[TableCell]]]  # a group of rows per ipc
    notes: list[str]
    grouped: bool = True  # the first column has one value a group, and is drawn once


# --- numbers as text ----------------------------------------------------------------------------------------


def short_number(value: float) -> str:
    """Two or three digits that matter: 0.012, 3.4, 120, 4,500; a dash for what nobody measured."""
    if math.isnan(value):
        return MISSING
    if value == 0:
        return "0"
    if value < 0.001:
        return "<0.001"
    if value < 0.995:
        return f"{value:.2g}"
    return f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def counted(n: int, noun: str) -> str:
    """`1 pair`, `2 pairs`, `1,200 pairs`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def number_range(values: Iterable[int]) -> str:
    """`3`, or `2–3` where they differ."""
    low, high = min(values := list(values)), max(values)
    return str(low) if low == high else f"{low}–{high}"


def percent_cell(row: Row, name: str) -> str:
    """A mean over seeds with its interval, with the deviation of two seeds, or alone for one."""
    mean, deviation, low, high = (row[f"{name}_{part}"] for part in ("mean", "std", "ci_low", "ci_high"))
    if math.isnan(mean):
        return MISSING
    text = percent_points(mean, low, high)
    return text if math.isnan(deviation) or not math.isnan(low) else f"{text} ± {100 * deviation:.1f}"


def with_interval(value: float, low: float, high: float, digits: int) -> str:
    """`93.1 [92.6, 93.5]`; without the interval where there is none, a dash where there is no value."""
    if math.isnan(value):
        return MISSING
    text = f"{value:z.{digits}f}"  # z: no minus before a zero
    return text if math.isnan(low) else f"{text} [{low:z.{digits}f}, {high:z.{digits}f}]"


def percent_points(value: float, low: float, high: float, *, signed: bool = False) -> str:
    """A fraction and its interval in percent; `signed`: a plus too."""
    text = with_interval(100 * value, 100 * low, 100 * high, 1)
    return f"+{text}" if signed and not text.startswith(("-", MISSING)) else text


def distinct_names(names: Iterable[str]) -> list[str]:
    """For files and references: `name-2` for the second of a name, and none longer than a file may have."""
    found: dict[str, None] = {}
    for name in (name[:LONGEST_NAME] for name in names):
        again = (f"{name}-{i}" for i in count(2))
        found[next(free for free in chain([name], again) if free not in found)] = None
    return list(found)


# --- rows ---------------------------------------------------------------------------------------------------


def frame_rows(frame: pd.DataFrame) -> list[Row]:
    """The rows of a frame."""
    return cast(list[Row], frame.to_dict("records"))


def budget_mark(exempt: bool, over_budget: bool) -> str:
    """What stands behind a method's name if it does not compete."""
    return " †" if exempt else " ‡" if over_budget else ""


def marked_method(row: Row) -> TableCell:
    """The method's name with its mark."""
    return TableCell(row["method"] + budget_mark(row["exempt"], not row["within_budget"]))


def mark_notes(rows: Iterable[Row]) -> list[str]:
    """What the marks of these rows mean."""
    rows = list(rows)
    exempt = [EXEMPT] if any(row["exempt"] for row in rows) else []
    over = any(not row["exempt"] and not row["within_budget"] for row in rows)
    return exempt + ([OVER_BUDGET] if over else [])


def distilled_on_cell(distill_arch: str) -> TableCell:
    """The distillation architecture, if the method needs one."""
    return TableCell(NO_NETWORK if distill_arch == "any" else distill_arch)


def distillation_architectures(rows: Iterable[Row]) -> list[str]:
    """The distillation architectures."""
    return sorted({row["distill_arch"] for row in rows} - {"any"})


def table_title(dataset: str, protocol: str, distilled: list[str]) -> str:
    """A table's heading; several distillation architectures have a column instead."""
    on = f", distilled on {distilled[0]}" if len(distilled) == 1 else ""
    return f"{dataset}, protocol {protocol}{on}"


def familiar_first(archs: Iterable[str], distilled: list[str]) -> list[str]:
    """Evaluation architectures in the order of their columns: those that were distilled on first."""
    return sorted(archs, key=lambda arch: (arch not in distilled, arch))


def rows_by_ipc(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each ipc, otherwise in their order; the whole set, "all", on top."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: -1 if pd.isna(row["ipc"]) else int(row["ipc"])):
        found.setdefault("all" if pd.isna(row["ipc"]) else str(int(row["ipc"])), []).append(row)
    return found


def by_dataset_and_protocol(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame, list[Row]]]:
    """What goes into one table: dataset, protocol, and its part of the frame, also as rows."""
    for (dataset, protocol), part in frame.groupby(["dataset", "protocol"]):
        yield str(dataset), str(protocol), part, frame_rows(part)


def method_columns(distilled: list[str]) -> list[tuple[TableColumn, Reader]]:
    """The columns that name a row: the method, and what it was distilled on if that differs."""
    named: list[tuple[TableColumn, Reader]] = [(TableColumn("method", left=True), marked_method)]
    if len(distilled) > 1:
        named.append(
            (TableColumn("distilled on", left=True), lambda row: distilled_on_cell(row["distill_arch"]))
        )
    return named


def lay_out(
    heading: str, columns: list[tuple[TableColumn, Reader]], rows: list[Row], notes: list[str]
) -> Comparison:
    """A table whose columns, after the ipc, are read off each row."""
    groups = [
        [[TableCell(ipc), *(read(row) for _, read in columns)] for row in group]
        for ipc, group in rows_by_ipc(rows).items()
    ]
    return Comparison(heading, [TableColumn("ipc"), *(column for column, _ in columns)], groups, notes)
