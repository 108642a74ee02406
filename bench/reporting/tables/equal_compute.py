"""Methods ranked at equal compute: only those whose sets took no more operations than the sweep's budget."""

import pandas as pd

from bench.analysis.compute import cell_operations, within_compute
from bench.core.words import flop
from bench.records.columns import Row
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables.equal_storage import STORED, ranked_table
from bench.reporting.tables.table import (
    MISSING,
    Comparison,
    Reader,
    TableCell,
    TableColumn,
    by_dataset_and_protocol,
)

COUNTED = "Operations: of convolutions and matrix products, a multiply-add as two; counted from shapes."


def _cell(name: str) -> Reader:
    return lambda line: TableCell(MISSING if pd.isna(line[name]) else flop(line[name]))


COSTS = [
    (TableColumn("operations"), _cell("operations")),
    (TableColumn("of these, prepare", rank=2), _cell("prepare_operations")),
    STORED,
]


def _left_out(rows: list[Row], limit: float) -> list[str]:
    """Notes that name what takes more than the budget, and what was not counted."""
    spent: dict[str, dict[int, str]] = {}
    unknown: dict[str, None] = {}
    for row in rows:
        if row["exempt"]:
            continue
        if pd.isna(row["operations"]):
            unknown[row["method"]] = None
        elif row["operations"] > limit:
            spent.setdefault(row["method"], {})[row["ipc"]] = flop(row["operations"])
    texts = [
        f"{method} ({', '.join(f'{much} at ipc {ipc}' for ipc, much in sorted(by_ipc.items()))})"
        for method, by_ipc in spent.items()
    ]
    notes = [f"Left out, with its operations: {', '.join(texts)}."] if texts else []
    return notes + ([f"Left out, not counted: {', '.join(unknown)}."] if unknown else [])


def _comparison(place: tuple[str, str], limit: float, rows: list[Row]) -> Comparison:
    what = f"Only what takes at most {flop(limit)} with its prerequisites, and fits the budget of its ipc."
    fair = [row for row in rows if row["competes"]]
    notes = [COUNTED, *_left_out(rows, limit)]
    return ranked_table(f"Equal compute, {flop(limit)}", place, fair, COSTS, what, notes)


def equal_compute_section(view: RecordsView) -> Section | None:
    """A table for each budget, data set and protocol under which several methods fit."""
    limits = view.flat.groupby(["dataset", "protocol"])["compute_budget"].unique()
    frames, found = [], []
    if view.flat["compute_budget"].notna().any():
        operations = cell_operations(view.flat)
        for limit in sorted(view.flat["compute_budget"].dropna().unique()):
            ranked = within_compute(view.summary, operations, limit)
            for dataset, protocol, part, rows in by_dataset_and_protocol(ranked):
                fair = part[part["competes"]]
                if limit in limits[dataset, protocol] and fair["method"].nunique() > 1:
                    found.append(_comparison((dataset, protocol), limit, rows))
                    frames.append(fair.drop(columns="competes"))
    return Section("equal_compute", pd.concat(frames, ignore_index=True), found) if found else None
