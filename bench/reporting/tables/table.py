"""Tables of text: their columns, cells and groups of rows, and numbers as text."""

# ruff: noqa: RUF001  (a table is set with real dashes and multiplication signs)

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, count
from typing import cast

import pandas as pd

from bench.analysis.aggregate import COLD_PHASES
from bench.records.columns import Row

MISSING = "—"
NO_NETWORK = "–"
LONGEST_NAME = 120  # characters; file systems take 255 bytes
EXEMPT = "† the whole training set: the ceiling, exempt from the budget."
OVER_BUDGET = "‡ stores more than its ipc allows: not a comparison at equal storage."
COLD = "* of first jobs of a process only, in which first calls of libraries are not all left out."
INTERVAL = (
    "±: standard deviation over distillation seeds; [low, high]: 95 % interval of their mean (Student's t), "
    "from 3 seeds on"
)
ACCURACY = f"Accuracy in percent, students averaged first; {INTERVAL}."
BOLD = "Bold: not told apart from the best (one test for all pairs, 5 %)."
RANK = "rank: the places that a method may have, as far as the seeds tell (one test for all pairs, 5 %)."
Reader = Callable[[Row], "TableCell"]  # of one column: gives the cell of a row


@dataclass(frozen=True)
class TableColumn:
    """A column: its header and how it is drawn."""

    header: str
    left: bool = False  # aligned to the left: text, and accuracies with their intervals
    rank: int = 0  # a narrow terminal drops the highest rank first, and never 0
    accuracy: bool = False  # of one evaluation architecture, under a common heading in LaTeX


@dataclass(frozen=True)
class TableCell:
    """A cell: its text, and whether it is bold."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Comparison:
    """One table, usually of what was scored on one data set under one protocol."""

    title: str
    columns: list[TableColumn]
    groups: list[list[list[TableCell]]]  # a group of rows per ipc
    notes: list[str]
    grouped: bool = True  # the first column has one value a group, and is drawn once


# --- numbers as text ----------------------------------------------------------------------------------------


def short_number(value: float) -> str:
    """Two or three significant digits: 0.012, 3.4, 120, 4,500; a dash for NaN."""
    if math.isnan(value):
        return MISSING
    if value == 0:
        return "0"
    if value < 0.001:
        return "<0.001"
    if value < 0.995:
        return f"{value:.2g}"
    return f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def number_range(values: Iterable[int]) -> str:
    """`3` where all values are equal, `2–3` where they differ."""
    low, high = min(values := list(values)), max(values)
    return str(low) if low == high else f"{low}–{high}"


def percent_cell(row: Row, name: str) -> str:
    """A mean over seeds in percent: with standard deviation and interval, as far as it has them.

    Args:
        row: Has the fractions `NAME_mean`, `NAME_std`, `NAME_ci_low` and `NAME_ci_high`.
        name: For example "accuracy".
    """
    mean, deviation, low, high = (row[f"{name}_{part}"] for part in ("mean", "std", "ci_low", "ci_high"))
    if math.isnan(mean):
        return MISSING
    text = f"{100 * mean:z.1f}" + ("" if math.isnan(deviation) else f" ± {100 * deviation:.1f}")
    return text if math.isnan(low) else f"{text} [{100 * low:z.1f}, {100 * high:z.1f}]"


def rank_cell(row: Row) -> TableCell:
    """The places that a method may have: `1`, `2–5`; a dash for what is not ranked."""
    if pd.isna(row["rank"]):
        return TableCell(MISSING)
    return TableCell(number_range([int(row["rank"]), int(row["rank_to"])]))


def with_interval(value: float, low: float, high: float, digits: int) -> str:
    """`93.1 [92.6, 93.5]`; without the interval if it is NaN, a dash if the value is NaN."""
    if math.isnan(value):
        return MISSING
    text = f"{value:z.{digits}f}"  # z: no minus before a zero
    return text if math.isnan(low) else f"{text} [{low:z.{digits}f}, {high:z.{digits}f}]"


def percent_points(value: float, low: float, high: float, *, signed: bool = False) -> str:
    """A fraction and its interval in percent; `signed`: positive ones begin with a plus."""
    text = with_interval(100 * value, 100 * low, 100 * high, 1)
    return f"+{text}" if signed and not text.startswith(("-", MISSING)) else text


def distinct_names(names: Iterable[str]) -> list[str]:
    """Make names of files and references distinct, `name-2` for a second one, and short enough for a file."""
    found: dict[str, None] = {}
    for name in (name[:LONGEST_NAME] for name in names):
        again = (f"{name}-{i}" for i in count(2))
        found[next(free for free in chain([name], again) if free not in found)] = None
    return list(found)


# --- rows ---------------------------------------------------------------------------------------------------


def frame_rows(frame: pd.DataFrame) -> list[Row]:
    """The rows of a frame as dictionaries."""
    return cast(list[Row], frame.to_dict("records"))


def budget_mark(*, exempt: bool, over_budget: bool) -> str:
    """The mark behind the name of a method that does not compete at equal storage."""
    return " †" if exempt else " ‡" if over_budget else ""


def cold_mark(row: Row, name: str) -> str:
    """The mark behind seconds of which no seed was warm; `name`: their column in the summary."""
    return " *" if COLD_PHASES[name] in row["cold"].split(", ") and row[name] > 0 else ""


def cold_notes(rows: Iterable[Row]) -> list[str]:
    """The note for `cold_mark`, where one of these rows of the summary has it."""
    return [COLD] if any(cold_mark(row, name) for row in rows for name in COLD_PHASES) else []


def marked_method(row: Row) -> TableCell:
    """The name of the method with its mark."""
    return TableCell(row["method"] + budget_mark(exempt=row["exempt"], over_budget=not row["within_budget"]))


def mark_notes(rows: Iterable[Row]) -> list[str]:
    """A note for each mark that occurs in these rows."""
    rows = list(rows)
    notes = []
    if any(row["exempt"] for row in rows):
        notes.append(EXEMPT)
    if any(not row["exempt"] and not row["within_budget"] for row in rows):
        notes.append(OVER_BUDGET)
    return notes


def distilled_on_cell(distill_arch: str) -> TableCell:
    """The distillation architecture; a dash for a method that needs none."""
    return TableCell(NO_NETWORK if distill_arch == "any" else distill_arch)


def distillation_architectures(rows: Iterable[Row]) -> list[str]:
    """The distillation architectures in these rows, sorted."""
    return sorted({row["distill_arch"] for row in rows} - {"any"})


def table_title(dataset: str, protocol: str, distilled: list[str]) -> str:
    """The title of a table. It names the distillation architecture if there is one; several have a column."""
    on = f", distilled on {distilled[0]}" if len(distilled) == 1 else ""
    return f"{dataset}, protocol {protocol}{on}"


def familiar_first(archs: Iterable[str], distilled: list[str]) -> list[str]:
    """Evaluation architectures in the order of their columns: distillation architectures first."""
    return sorted(archs, key=lambda arch: (arch not in distilled, arch))


def rows_by_ipc(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each ipc in ascending order; the whole training set, "all", comes first."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: -1 if pd.isna(row["ipc"]) else int(row["ipc"])):
        found.setdefault("all" if pd.isna(row["ipc"]) else str(int(row["ipc"])), []).append(row)
    return found


def by_dataset_and_protocol(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame, list[Row]]]:
    """Yield (dataset, protocol, part, rows): what goes into one table, as a frame and as dictionaries."""
    for (dataset, protocol), part in frame.groupby(["dataset", "protocol"]):
        yield str(dataset), str(protocol), part, frame_rows(part)


def method_columns(distilled: list[str]) -> list[tuple[TableColumn, Reader]]:
    """The columns that name a row: the method, and the distillation architecture if there are several."""
    named: list[tuple[TableColumn, Reader]] = [(TableColumn("method", left=True), marked_method)]
    if len(distilled) > 1:
        named.append(
            (TableColumn("distilled on", left=True), lambda row: distilled_on_cell(row["distill_arch"]))
        )
    return named


def table_by_ipc(
    title: str, columns: list[tuple[TableColumn, Reader]], rows: list[Row], notes: list[str]
) -> Comparison:
    """Make a table with a group of rows for each ipc.

    Args:
        title: The heading.
        columns: Those after the ipc, each with a function that gives its cell of a row.
        rows: The rows of the table, in their order within an ipc.
        notes: What stands below the table.
    """
    groups = [
        [[TableCell(ipc), *(read(row) for _, read in columns)] for row in group]
        for ipc, group in rows_by_ipc(rows).items()
    ]
    return Comparison(title, [TableColumn("ipc"), *(column for column, _ in columns)], groups, notes)
