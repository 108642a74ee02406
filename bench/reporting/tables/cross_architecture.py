"""Accuracy across architectures: how distilled sets do on networks other than their own."""

import pandas as pd

from bench.records.columns import Row
from bench.reporting.tables import table
from bench.reporting.tables.table import (
    MISSING,
    Comparison,
    Reader,
    TableCell,
    TableColumn,
    percent_points,
)

ACCURACY_PREFIX = "accuracy_"  # `aggregate.transfer` has a column accuracy_ARCH for each architecture


def transfer_architectures(transfer: pd.DataFrame) -> list[str]:
    """The evaluation architectures that have a score in these rows, in the order of their columns."""
    found = transfer.filter(like=ACCURACY_PREFIX).dropna(axis="columns", how="all").columns
    return table.familiar_first(
        (name.removeprefix(ACCURACY_PREFIX) for name in found), list(transfer["distill_arch"])
    )


def _on(arch: str) -> Reader:
    """The accuracy on one architecture, bold where the set was distilled on it."""

    def read(row: Row) -> TableCell:
        value = row[ACCURACY_PREFIX + arch]
        return TableCell(MISSING if pd.isna(value) else f"{100 * value:.1f}", row["distill_arch"] == arch)

    return read


def _mean_of(name: str) -> Reader:
    return lambda row: TableCell(
        percent_points(*(row[f"{name}_{end}"] for end in ("mean", "ci_low", "ci_high")))
    )


def _notes(rows: list[Row], protocol: str, distilled: list[str]) -> list[str]:
    certain = [row["n_seeds"] for row in rows if not pd.isna(row["transfer_ci_low"])]
    interval = (
        f"; [low, high]: 95 % interval of the mean (Student's t) over {table.number_range(certain)} seeds"
        if certain
        else ""
    )
    notes = [
        f"Accuracy in percent under protocol {protocol}, means over distillation seeds; bold: on the "
        "architecture that the set was distilled on.",
        "transfer: the mean over all other architectures, for each seed first; gap: the accuracy on its own "
        f"less the transfer{interval}.",
    ]
    if any(row["distill_arch"] == "any" for row in rows):
        own = f"is taken with {distilled[0]}" if len(distilled) == 1 else "has no transfer"
        notes.append(f"What needs no network {own}.")
    return notes + table.mark_notes(rows)


def cross_architecture_tables(transfer: pd.DataFrame) -> list[Comparison]:
    """A table for every data set and protocol with several evaluation architectures.

    Args:
        transfer: The frame of `aggregate.transfer`.
    """
    tables = []
    for dataset, protocol, part, rows in table.by_dataset_and_protocol(transfer):
        if len(archs := transfer_architectures(part)) < 2:
            continue
        distilled = table.distillation_architectures(rows)
        columns = [
            *table.method_columns(distilled),
            (TableColumn("transfer", left=True), _mean_of("transfer")),
            (TableColumn("gap", left=True), _mean_of("gap")),
            *((TableColumn(arch, accuracy=True), _on(arch)) for arch in archs),
        ]
        title = "Across architectures: " + table.table_title(dataset, protocol, distilled)
        tables.append(table.table_by_ipc(title, columns, rows, _notes(rows, protocol, distilled)))
    return tables
