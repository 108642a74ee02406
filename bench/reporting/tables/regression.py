"""Tables of what changed between two result sets, A and B."""

# ruff: noqa: RUF001  (a table is set with real dashes and multiplication signs)

import pandas as pd

from bench.analysis.best import SIGNIFICANCE
from bench.analysis.devices import several_devices
from bench.analysis.regression import IMPROVED, POWER, REGRESSED, STORES_MORE, TOO_FEW_SEEDS
from bench.core.words import count
from bench.records.columns import Row
from bench.reporting.tables.table import (
    MISSING,
    Comparison,
    Reader,
    TableCell,
    TableColumn,
    by_dataset_and_protocol,
    distillation_architectures,
    mark_notes,
    method_columns,
    percent_points,
    short_number,
    table_by_ipc,
    table_title,
)

NOTES = (
    "Accuracy in percent, students averaged first; B − A in points with its 95 % interval over "
    "distillation seeds: those of A and B paired where their sets have one key (then the means are of "
    "these), else independent.",
    f"p: t-test with moderated variances, Holm's correction over all {{tested}} cells with at least 2 seeds "
    f"on both sides. Regressed, improved: p is under {SIGNIFICANCE}.",
    "Seconds to prepare and distill; KiB at fp32. Storing more is a regression too; seconds are only shown.",
)


def _percent(name: str) -> Reader:
    return lambda row: TableCell(MISSING if pd.isna(row[name]) else f"{100 * row[name]:.1f}")


def _difference(row: Row) -> TableCell:
    text = percent_points(row["difference"], row["ci_low"], row["ci_high"], signed=True)
    return TableCell(text, row["verdict"] in (REGRESSED, IMPROVED))


def _change(name: str, scale: float) -> Reader:
    """`12 → 14`, or one number where both are written alike."""

    def read(row: Row) -> TableCell:
        before, after = (short_number(row[f"{name}_{side}"] / scale) for side in ("a", "b"))
        return TableCell(before if before == after else f"{before} → {after}")

    return read


def _verdict(row: Row) -> TableCell:
    found = [text for text in (row["verdict"], row["storage"]) if text]
    return TableCell(", ".join(found), row["verdict"] == REGRESSED or row["storage"] == STORES_MORE)


def _detectable_notes(table: pd.DataFrame) -> list[str]:
    """Which drop would have been found; nothing where no cell has any spread."""
    points = 100 * table["detectable"][table["detectable"] > 0]
    if points.empty:
        return []
    low, middle, high = (f"{end:.1f}" for end in points.quantile([0, 0.5, 1]))
    return [
        f"A drop is called a regression in {POWER:.0%} of cases from {middle} points on (median of the "
        f"cells; {low} to {high}): smaller ones may be there."
    ]


def regression_tables(table: pd.DataFrame, notes: list[str]) -> list[Comparison]:
    """A table for every data set and protocol.

    Args:
        table: The frame of `analysis.regression.moved_cells`.
        notes: Those of `label_alike`, added to each table.
    """
    tested = int(table["p_holm"].notna().sum())
    said = [note.format(tested=tested) for note in NOTES] + _detectable_notes(table) + notes
    found = []
    for dataset, protocol, part, rows in by_dataset_and_protocol(table):
        distilled = distillation_architectures(rows)
        archs = part["eval_arch"].nunique() > 1
        evaluated = (TableColumn("evaluated on", left=True), lambda row: TableCell(row["eval_arch"]))
        columns = [
            *method_columns(distilled),
            *([evaluated] if archs else []),
            (TableColumn("A"), _percent("mean_a")),
            (TableColumn("B"), _percent("mean_b")),
            (TableColumn("B − A", left=True), _difference),
            (TableColumn("p", rank=1), lambda row: TableCell(short_number(row["p_holm"]))),
            (TableColumn("verdict", left=True), _verdict),
            (TableColumn("seconds", rank=3), _change("seconds", 1)),
            (TableColumn("stored KiB", rank=2), _change("stored_bytes", 1024)),
        ]
        title = f"B against A: {table_title(dataset, protocol, distilled)}"
        devices = several_devices([*part["device_a"].dropna(), *part["device_b"].dropna()])
        found.append(table_by_ipc(title, columns, rows, said + devices + mark_notes(rows)))
    return found


def tally_moved(table: pd.DataFrame) -> str:
    """Count the verdicts: `12 cells in both: 1 regressed, 0 improved, 11 within noise; 2 only in A`."""
    verdicts = table["verdict"].value_counts()
    both = int(table["difference"].notna().sum())
    parts = [f"{verdicts.get(name, 0)} {name}" for name in (REGRESSED, IMPROVED)]
    parts.append(f"{verdicts.get('', 0)} within noise")
    parts += [f"{verdicts[TOO_FEW_SEEDS]} with too few seeds"] if TOO_FEW_SEEDS in verdicts else []
    more = int((table["storage"] == STORES_MORE).sum())
    parts += [f"{more} storing more"] if more else []
    missing = [f"; {verdicts[name]} {name}" for name in ("only in A", "only in B") if name in verdicts]
    return f"{count(both, 'cell')} in both: {', '.join(parts)}{''.join(missing)}"
