"""The leaderboard: its columns and rows, and the details that a row opens to."""

# ruff: noqa: RUF001  (a multiplication sign)

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd

from bench.analysis.aggregate import deduplicate
from bench.core.words import flop
from bench.records.artifact import read_set_meta
from bench.records.columns import Row
from bench.records.naming import CELL
from bench.records.to_sweep import joined_command, reproducing_command, rows_by_sweep
from bench.reporting.html.cells import AGREE, leaderboard_frame
from bench.reporting.sections import RecordsView
from bench.reporting.tables import table
from bench.reporting.tables.table import short_number

ShownCell = str | list[Any]  # text, or [text, value to sort by]
WITHIN, OVER, EXEMPT = "within", "‡ over", "† exempt"
FRONT = "◆"
ALL_IPC = "all"


@dataclass(frozen=True)
class LeaderboardColumn:
    """A column of the leaderboard."""

    header: str
    read: Callable[[Row], ShownCell]  # the cell of a row of the summary
    numeric: bool = False
    filtered: bool = False  # rows compare where they agree in it; has a filter above the table
    extra: bool = False  # hidden until it is asked for


def _rule(row: Row) -> str:
    return EXEMPT if row["exempt"] else WITHIN if row["within_budget"] else OVER


def _ipc(row: Row) -> ShownCell:
    return [ALL_IPC, math.inf] if pd.isna(row["ipc"]) else [str(row["ipc"]), int(row["ipc"])]


def _rank(row: Row) -> ShownCell:
    if row["reference"]:
        return [table.MISSING, None]
    return [table.rank_cell(row).text, None if pd.isna(row["rank"]) else int(row["rank"])]


def _runs(row: Row) -> ShownCell:
    return [f"{row['n_seeds']}×{row['n_students']}", row["n_seeds"]]


def _accuracy(row: Row) -> ShownCell:
    """Text and mean; then what its bar is drawn from: interval, random images, the whole set."""
    drawn = ("accuracy_ci_low", "accuracy_ci_high", "random", "full")
    return [
        table.percent_cell(row, "accuracy"),
        row["accuracy_mean"],
        *(_finite(row[name]) for name in drawn),
    ]


def _gain(row: Row) -> ShownCell:
    gain = 100 * (row["accuracy_mean"] - row["random"])
    return [table.MISSING, None] if math.isnan(gain) else [f"{gain:+.1f}", gain]


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value


def _measured(name: str, unit: float = 1) -> Callable[[Row], list[Any]]:
    """A number in some unit; NaN is a dash, and sorted below all numbers."""

    def read(row: Row) -> list[Any]:
        value = float(row[name]) / unit
        return [short_number(value).removesuffix(".0"), _finite(value)]

    return read


def _seconds(name: str) -> Callable[[Row], ShownCell]:
    """Seconds with the mark of cold jobs."""

    def read(row: Row) -> ShownCell:
        text, value = _measured(name)(row)
        return [text + table.cold_mark(row, name), value]

    return read


def _cost(name: str, text: Callable[[float], str]) -> Callable[[Row], ShownCell]:
    """What a set took with its prerequisites, marked where it is on the Pareto front."""

    def read(row: Row) -> ShownCell:
        value = float(row[name])
        shown = table.MISSING if math.isnan(value) else text(value)
        return [shown + (f" {FRONT}" if row[f"front_{name}"] else ""), _finite(value)]

    return read


LEADERBOARD_COLUMNS: tuple[LeaderboardColumn, ...] = (
    LeaderboardColumn("method", lambda row: table.marked_method(row).text),
    LeaderboardColumn("rank", _rank, numeric=True),
    LeaderboardColumn("accuracy %", _accuracy, numeric=True),
    LeaderboardColumn("over random", _gain, numeric=True),
    LeaderboardColumn("KiB", _measured("stored_bytes", 1024), numeric=True),
    LeaderboardColumn("seconds", _cost("seconds", short_number), numeric=True),
    LeaderboardColumn("operations", _cost("operations", flop), numeric=True),
    LeaderboardColumn("seeds × students", _runs, numeric=True),
    LeaderboardColumn("dataset", lambda row: row["dataset"], filtered=True),
    LeaderboardColumn("ipc", _ipc, numeric=True, filtered=True),
    LeaderboardColumn("evaluated on", lambda row: row["eval_arch"], filtered=True),
    LeaderboardColumn("protocol", lambda row: row["protocol"], filtered=True),
    LeaderboardColumn("distilled on", lambda row: table.distilled_on_cell(row["distill_arch"]).text),
    LeaderboardColumn("budget", _rule),
    LeaderboardColumn("stored ipc", _measured("ipc_equivalent"), numeric=True, extra=True),
    LeaderboardColumn("prepare s", _seconds("prepare_s"), numeric=True, extra=True),
    LeaderboardColumn("distill s", _seconds("distill_s"), numeric=True, extra=True),
    LeaderboardColumn("evaluate s", _seconds("evaluate_s"), numeric=True, extra=True),
    LeaderboardColumn("peak MiB", _measured("peak_memory_bytes", 2**20), numeric=True, extra=True),
)


@dataclass(frozen=True)
class LeaderboardRow:
    """A row of the leaderboard, and the records that it is made of."""

    cells: list[ShownCell]
    reference: bool  # a reference line, which is not ranked
    label: str  # the row in words, for screen readers
    records: list[Row]  # rows of the flat frame, sorted by seed

    @property
    def lowest(self) -> Row:
        """The record of the lowest seed."""
        return self.records[0]


def leaderboard_rows(view: RecordsView) -> list[LeaderboardRow]:
    """A row for each row of the summary, in its order."""
    held: dict[tuple[Any, ...], list[Row]] = {}
    for record in cast(list[Row], deduplicate(view.flat).to_dict("records")):
        held.setdefault(_where(record), []).append(record)
    rows = cast(list[Row], leaderboard_frame(view.summary, view.flat).to_dict("records"))
    return [
        LeaderboardRow(
            [_cell(c, row) for c in LEADERBOARD_COLUMNS], row["reference"], _label(row), held[_where(row)]
        )
        for row in rows
    ]


def _where(row: Row) -> tuple[Any, ...]:
    """The cell of a row, as a key."""
    return tuple(None if name == "ipc" and pd.isna(row[name]) else row[name] for name in CELL)


def _cell(column: LeaderboardColumn, row: Row) -> ShownCell:
    shown = column.read(row)
    if isinstance(shown, list) and shown[1] == math.inf:
        return [shown[0], 1e308]  # JSON has no infinity
    return shown


def _label(row: Row) -> str:
    ipc: str = "the whole set" if pd.isna(row["ipc"]) else f"ipc {row['ipc']}"
    return f"{row['method']}, {ipc}, {row['eval_arch']}, {row['dataset']}"


def row_command(entry: LeaderboardRow, specs: Mapping[str, Mapping[str, Any]]) -> str:
    """The commands that make all records of a row again.

    Args:
        entry: The row.
        specs: The data set of each artifact, by its key, as `dataset_specs` finds them.
    """
    parts = rows_by_sweep(entry.records)
    return "\n\n".join(reproducing_command(rows, specs.get(rows[0]["artifact"])) for rows in parts)


def view_commands(
    found: Sequence[LeaderboardRow], specs: Mapping[str, Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """For each cell of the leaderboard (`cells.AGREE`), as texts, the commands that make all of its records.

    Args:
        found: The rows.
        specs: As for `row_command`.
    """
    views: dict[tuple[str, ...], list[list[Row]]] = {}
    for parts in map(rows_by_sweep, (entry.records for entry in found)):
        first = parts[0][0]
        here = tuple(ALL_IPC if pd.isna(first[name]) else str(first[name]) for name in AGREE)
        views.setdefault(here, []).extend(parts)
    ipc = AGREE.index("ipc")
    for cell, parts in views.items():
        whole: tuple[str, ...] = (
            *cell[:ipc],
            ALL_IPC,
            *cell[ipc + 1 :],
        )  # the whole set stands in the views of every ipc
        both = parts if cell == whole else parts + views.get(whole, [])
        yield {"cell": cell, "command": joined_command(both, specs.get(parts[0][0]["artifact"]))}


def dataset_specs(found: Sequence[LeaderboardRow], folders: Sequence[Path]) -> dict[str, Mapping[str, Any]]:
    """The data set that each artifact was distilled from, by its key, for artifacts that still exist."""
    artifacts = {record["artifact"] for entry in found for record in entry.records}
    held = [folder / "artifacts" for folder in reversed(folders) if (folder / "artifacts").is_dir()]
    known = ((key, _spec(folder / key)) for folder in held for key in artifacts)
    return {key: spec for key, spec in known if spec is not None}


def _spec(folder: Path) -> Mapping[str, Any] | None:
    """None where the artifact is missing or damaged, or does not say."""
    try:
        found: dict[str, Any] = read_set_meta(folder).get("dataset_spec", {})
    except ValueError:
        return None
    return found if "name" in found else None
