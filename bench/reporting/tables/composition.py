"""Compositions as a matrix: parameterisation by objective."""

import re

import pandas as pd

from bench.analysis.best import RANKED
from bench.records.columns import COMPOSED_OF, SECONDS, Row
from bench.reporting.plots.composition import composition_heatmap
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables.table import (
    ACCURACY,
    BOLD,
    MISSING,
    Comparison,
    TableCell,
    TableColumn,
    budget_mark,
    by_dataset_and_protocol,
    distillation_architectures,
    frame_rows,
    mark_notes,
    percent_cell,
    table_title,
)

OTHERS = "variant"  # the hyper-parameters, other than the blocks, in which two compositions differ
PLACE = ["dataset", "protocol", "ipc", "distill_arch", "eval_arch"]
HEADERS = {"distill_arch": "distilled on", "eval_arch": "evaluated on", OTHERS: OTHERS}


def composition_frame(view: RecordsView) -> pd.DataFrame:
    """The rows of the summary that are compositions, with their blocks; empty without two to compare."""
    blocks = view.flat.loc[view.flat["parameterisation"].notna(), ["method", *COMPOSED_OF]].drop_duplicates()
    rows = view.summary.merge(blocks, on="method")
    rows[OTHERS] = [_others(row) for row in frame_rows(rows)]
    order = [*PLACE, OTHERS, *COMPOSED_OF]
    accuracy = view.summary.filter(like="accuracy_").columns
    kept = [*order, *accuracy, "n_seeds", *RANKED, "stored_floats", *SECONDS]
    shown = rows.sort_values(order)[[*kept, "within_budget", "exempt"]]
    return shown if len(blocks.drop_duplicates(COMPOSED_OF)) > 1 else shown.iloc[:0]


def _others(row: Row) -> str:
    """`labels=hard` of `compose[labels=hard, objective=..., parameterisation=...]`."""
    inside = str(row["method"]).partition("[")[2].removesuffix("]")
    blocks = "|".join(re.escape(f"{name}={row[name]}") for name in COMPOSED_OF)
    return re.sub(rf"(?:^|, )(?:{blocks})(?=, |$)", "", inside).removeprefix(", ")


def _varying(rows: list[Row], distilled: list[str]) -> list[str]:
    """The columns, other than ipc and parameterisation, in which lines of the matrix differ."""
    named = []
    if len(distilled) > 1:
        named.append("distill_arch")
    if len({row["eval_arch"] for row in rows}) > 1:
        named.append("eval_arch")
    if any(row[OTHERS] for row in rows):
        named.append(OTHERS)
    return named


def _groups(rows: list[Row], named: list[str], objectives: list[str]) -> list[list[list[TableCell]]]:
    """The lines of the matrix, a group for each ipc."""
    groups: dict[str, dict[tuple[str, ...], dict[str, TableCell]]] = {}
    for row in rows:
        group = groups.setdefault(str(row["ipc"]), {})
        line = group.setdefault((*(row[name] for name in named), row["parameterisation"]), {})
        mark = budget_mark(exempt=row["exempt"], over_budget=not row["within_budget"])
        line[row["objective"]] = TableCell(percent_cell(row, "accuracy") + mark, bool(row["best"]))
    return [
        [
            [TableCell(ipc), *map(TableCell, texts), *(line.get(o, TableCell(MISSING)) for o in objectives)]
            for texts, line in group.items()
        ]
        for ipc, group in groups.items()
    ]


def _comparison(dataset: str, protocol: str, rows: list[Row]) -> Comparison:
    distilled = distillation_architectures(rows)
    named = _varying(rows, distilled)
    objectives = sorted({row["objective"] for row in rows})
    headers = [*(HEADERS[name] for name in named), "parameterisation", *objectives]
    columns = [TableColumn("ipc"), *(TableColumn(header, left=True) for header in headers)]
    notes = [
        f"{ACCURACY} {BOLD} The best of all methods in these records, of an ipc and evaluation architecture.",
        *mark_notes(rows),
    ]
    title = f"Parameterisation by objective: {table_title(dataset, protocol, distilled)}"
    return Comparison(title, columns, _groups(rows, named, objectives), notes)


def composition_section(view: RecordsView) -> Section | None:
    """A matrix for each data set and protocol, where the records hold compositions to compare."""
    table = composition_frame(view)
    found = [
        _comparison(dataset, protocol, rows) for dataset, protocol, _, rows in by_dataset_and_protocol(table)
    ]
    plot = {"composition": lambda: composition_heatmap(table, view.summary, [*PLACE, OTHERS])}
    return Section("composition", table, found, dict(plot)) if found else None
