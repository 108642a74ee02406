"""Across architectures: what each method's sets are worth on networks other than their own, and a picture."""

import pandas as pd

from bench.report import layout
from bench.report.layout import MISSING, Cell, Column, Comparison, Reader, Row, percent

PREFIX = "accuracy_"  # of the columns of `aggregate.transfer` that hold one evaluation architecture each


def architectures(transfer: pd.DataFrame) -> list[str]:
    """Those on which something in these rows was scored, in the order of their columns."""
    found = transfer.filter(like=PREFIX).dropna(axis="columns", how="all").columns
    return layout.familiar_first(
        (name.removeprefix(PREFIX) for name in found), list(transfer["distill_arch"])
    )


def _on(arch: str) -> Reader:
    def read(row: Row) -> Cell:
        value = row[PREFIX + arch]
        return Cell(MISSING if pd.isna(value) else f"{100 * value:.1f}", row["distill_arch"] == arch)

    return read


def _notes(rows: list[Row], protocol: str, distilled: list[str]) -> list[str]:
    certain = [row["n_seeds"] for row in rows if not pd.isna(row["transfer_ci_low"])]
    interval = f"; [low, high]: 95 % bootstrap interval over {layout.span(certain)} seeds" if certain else ""
    notes = [
        f"Accuracy in percent under protocol {protocol}, means over distillation seeds; bold: on the "
        "architecture that the set was distilled on.",
        "transfer: the mean over all other architectures, for each seed first; gap: the accuracy on its own "
        f"less the transfer{interval}.",
    ]
    if any(row["distill_arch"] == "any" for row in rows):
        own = f"is taken with {distilled[0]}" if len(distilled) == 1 else "has no transfer"
        notes.append(f"What needs no network {own}.")
    return notes + layout.mark_notes(rows)


def compare(transfer: pd.DataFrame) -> list[Comparison]:
    """A table for every dataset and protocol with several evaluation architectures, from that frame."""
    tables = []
    for dataset, protocol, part, rows in layout.sections(transfer):
        if len(archs := architectures(part)) < 2:
            continue
        distilled = layout.distilled_on(rows)
        columns = [
            *layout.who(distilled),
            (Column("transfer", left=True), lambda row: Cell(percent(row, "transfer"))),
            (Column("gap", left=True), lambda row: Cell(percent(row, "gap"))),
            *((Column(arch, accuracy=True), _on(arch)) for arch in archs),
        ]
        title = "Across architectures: " + layout.title(dataset, protocol, distilled)
        tables.append(layout.lay_out(title, columns, rows, _notes(rows, protocol, distilled)))
    return tables
