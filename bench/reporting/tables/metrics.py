"""Further metrics: calibration error, agreement, the worst class, and DD-Ranking's scores."""

import pandas as pd

from bench.analysis.dd_ranking import SCORES
from bench.records.columns import MEASURED_COLUMNS, Row
from bench.records.naming import CELL
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables.table import (
    Comparison,
    Reader,
    TableCell,
    TableColumn,
    by_dataset_and_protocol,
    distillation_architectures,
    mark_notes,
    method_columns,
    percent_cell,
    table_by_ipc,
    table_title,
    with_interval,
)

METRICS = (*MEASURED_COLUMNS, "diverged")
HEADERS = {
    **{"calibration_error": "ECE", "agreement": "agreement", "worst_class": "worst class"},
    "diverged": "diverged",
}
MEANING = {
    "calibration_error": "ECE: expected calibration error, 15 bins.",
    "agreement": "agreement: how often two students of one set predict the same class.",
    "worst_class": "worst class: the accuracy of the class that a student knows least.",
    "diverged": "diverged: students of all seeds whose predictions are not finite; ECE and agreement are of "
    "the others, accuracies of all.",
    "hlr": "HLR: hard label recovery, the whole set's accuracy less the method's, both with hard labels.",
    "ior": "IOR: improvement over as many random real images.",
    "lrs": "LRS: label-robust score of IOR and HLR, from fractions; 0.269 is no gain and no loss.",
    "ars": "ARS: augmentation-robust score of IOR with and without augmentation; 0.269 is no gain.",
}


def metrics_frame(measured: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Join metrics and DD-Ranking's scores by cell.

    Args:
        measured: The frame of `aggregate.metrics_summary`.
        scores: The frame of `dd_ranking.dd_ranking_scores`.
    """
    return measured.merge(scores.astype({"ipc": "Int64"}), on=CELL, how="left")


def _value(name: str) -> Reader:
    """A mean in percent, or a score with its interval: HLR and IOR in points, LRS and ARS as fractions."""

    def read(row: Row) -> TableCell:
        if name == "diverged":
            return TableCell(f"{row[name]:,}")
        if name in MEASURED_COLUMNS:
            return TableCell(with_interval(100 * row[name], float("nan"), float("nan"), 1))
        low, high = row[f"{name}_ci_low"], row[f"{name}_ci_high"]
        if name in ("hlr", "ior"):
            return TableCell(with_interval(100 * row[name], 100 * low, 100 * high, 1))
        return TableCell(with_interval(row[name], low, high, 3))

    return read


def _notes(rows: list[Row], protocol: str, known: list[str]) -> list[str]:
    notes = [f"Percent under protocol {protocol}, students averaged first."]
    notes += [MEANING[name] for name in known]
    if set(known) & set(SCORES):
        notes.append(
            "HLR and IOR in points; [low, high]: 95 % interval over distillation seeds, those of the "
            "method, of random real images and of the whole set being independent."
        )
    for name in ("hlr", "ars"):
        partners = {row[f"{name}_protocol"] for row in rows if isinstance(row[f"{name}_protocol"], str)}
        if others := ", ".join(sorted(partners - {protocol})):
            what = "hard labels" if name == "hlr" else "no augmentation"
            notes.append(f"{name.upper()}: {what} under protocol {others}.")
    return notes + mark_notes(rows)


def metrics_tables(table: pd.DataFrame) -> list[Comparison]:
    """A table for every data set and protocol of `metrics_frame`; a metric that no row has gets no column."""
    tables = []
    for dataset, protocol, part, rows in by_dataset_and_protocol(table):
        known = [name for name in (*METRICS, *SCORES) if part[name].notna().any()]
        distilled = distillation_architectures(rows)
        columns = [
            *method_columns(distilled),
            (TableColumn("evaluated on", left=True), lambda row: TableCell(row["eval_arch"])),
            (TableColumn("accuracy", left=True), lambda row: TableCell(percent_cell(row, "accuracy"))),
            *(
                (TableColumn(HEADERS.get(name, name.upper()), left=name in SCORES), _value(name))
                for name in known
            ),
        ]
        title = f"Further metrics: {table_title(dataset, protocol, distilled)}"
        tables.append(table_by_ipc(title, columns, rows, _notes(rows, protocol, known)))
    return tables


def metrics_section(view: RecordsView) -> Section:
    """The metrics of all records, and the scores where there is what they need."""
    table = metrics_frame(view.measured, view.scores)
    return Section("metrics", table, metrics_tables(table))
