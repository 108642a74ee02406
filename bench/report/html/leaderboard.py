"""The rows of the leaderboard: what stands in each cell, and what a row opens to."""

# ruff: noqa: RUF001  (a multiplication sign)

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd

from bench.aggregate import once
from bench.labels import CELL
from bench.report import layout, reproduce
from bench.report.exhibit import View
from bench.report.layout import Row, number

Shown = str | list[Any]  # text, or [text, what it is sorted by]
WITHIN, OVER, EXEMPT = "within", "‡ over", "† exempt"


@dataclass(frozen=True)
class Column:
    """A column of the leaderboard."""

    header: str
    read: Callable[[Row], Shown]
    numeric: bool = False
    filtered: bool = False  # has a choice of its own above the table


def _rule(row: Row) -> str:
    return EXEMPT if row["exempt"] else WITHIN if row["within_budget"] else OVER


def _ipc(row: Row) -> Shown:
    return ["all", math.inf] if pd.isna(row["ipc"]) else [str(row["ipc"]), int(row["ipc"])]


def _runs(row: Row) -> Shown:
    return [f"{row['n_seeds']}×{row['n_students']}", row["n_seeds"]]


def _measured(name: str, unit: float = 1) -> Callable[[Row], Shown]:
    """A number, sorted by its value; a dash, sorted as less than any, for what nobody measured."""

    def read(row: Row) -> Shown:
        value = float(row[name]) / unit
        return [number(value).removesuffix(".0"), None if math.isnan(value) else value]

    return read


COLUMNS: tuple[Column, ...] = (  # what a phone does not show stands at the right
    Column("method", lambda row: layout.marked(row).text),
    Column("ipc", _ipc, numeric=True, filtered=True),
    Column("accuracy %", lambda row: [layout.percent(row, "accuracy"), row["accuracy_mean"]], numeric=True),
    Column("distilled on", lambda row: layout.source(row["distill_arch"]).text, filtered=True),
    Column("evaluated on", lambda row: row["eval_arch"], filtered=True),
    Column("dataset", lambda row: row["dataset"], filtered=True),
    Column("protocol", lambda row: row["protocol"], filtered=True),
    Column("budget", _rule, filtered=True),
    Column("seeds × students", _runs, numeric=True),
    Column("stored ipc", _measured("ipc_equivalent"), numeric=True),
    Column("KiB", _measured("stored_bytes", 1024), numeric=True),
    Column("prepare s", _measured("prepare_s"), numeric=True),
    Column("distill s", _measured("distill_s"), numeric=True),
    Column("evaluate s", _measured("evaluate_s"), numeric=True),
    Column("peak MiB", _measured("peak_memory_bytes", 2**20), numeric=True),
)


@dataclass(frozen=True)
class Entry:
    """A row of the leaderboard, and the records that it is made of."""

    cells: list[Shown]
    label: str  # in words, for who does not see where it stands
    records: list[Row]  # rows of `rows.frame`, by seed

    @property
    def lowest(self) -> Row:
        """The record of the lowest seed."""
        return self.records[0]


def entries(view: View) -> list[Entry]:
    """A row for each of the summary, in its order."""
    held: dict[tuple[Any, ...], list[Row]] = {}
    for record in cast(list[Row], once(view.flat).to_dict("records")):
        held.setdefault(_where(record), []).append(record)
    rows = cast(list[Row], view.summary.to_dict("records"))
    return [Entry([_cell(c, row) for c in COLUMNS], _label(row), held[_where(row)]) for row in rows]


def _where(row: Row) -> tuple[Any, ...]:
    return tuple(None if name == "ipc" and pd.isna(row[name]) else row[name] for name in CELL)


def _cell(column: Column, row: Row) -> Shown:
    shown = column.read(row)
    if isinstance(shown, list) and shown[1] == math.inf:
        return [shown[0], 1e308]  # JSON has no infinity
    return shown


def _label(row: Row) -> str:
    ipc: str = "the whole set" if pd.isna(row["ipc"]) else f"ipc {row['ipc']}"
    return f"{row['method']}, {ipc}, {row['eval_arch']}, {row['dataset']}"


def command(entry: Entry, specs: Mapping[str, Mapping[str, Any]]) -> str:
    """How to make all records of a row again."""
    parts = reproduce.alike(entry.records)
    return "\n\n".join(reproduce.command(rows, specs.get(rows[0]["artifact"])) for rows in parts)


def specs(found: Sequence[Entry], folders: Sequence[Path]) -> dict[str, Mapping[str, Any]]:
    """By artifact, for those that are still there: which data set it was distilled from."""
    artifacts = {record["artifact"] for entry in found for record in entry.records}
    held = [folder / "artifacts" for folder in reversed(folders) if (folder / "artifacts").is_dir()]
    known = ((key, _spec(folder / key / "meta.json")) for folder in held for key in artifacts)
    return {key: spec for key, spec in known if spec is not None}


def _spec(path: Path) -> Mapping[str, Any] | None:
    """None where the file is not there, is damaged, or is from before it was kept."""
    try:
        return cast(Mapping[str, Any], json.loads(path.read_text())["dataset_spec"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
