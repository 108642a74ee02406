"""What a composition is made of: parameterisation by objective."""

import re

import pandas as pd

from bench.analysis.aggregate import SECONDS
from bench.records.columns import COMPOSED_OF, Row
from bench.report.sections import RecordsView, Section
from bench.report.tables.table import (
    ACCURACY,
    MISSING,
    Comparison,
    TableCell,
    TableColumn,
    budget_mark,
    by_dataset_and_protocol,
    competes,
    distillation_architectures,
    frame_rows,
    mark_notes,
    percent_cell,
    table_title,
    tied,
)

OTHERS = "variant"  # what else tells two compositions apart
PLACE = ["dataset", "protocol", "ipc", "distill_arch", "eval_arch"]


def composition_frame(view: RecordsView) -> pd.DataFrame:
    """The rows of the summary that are compositions, with their blocks; none without two to compare."""
    blocks = view.flat.loc[view.flat["parameterisation"].notna(), ["method", *COMPOSED_OF]].drop_duplicates()
    rows = view.summary.merge(blocks, on="method")
    rows[OTHERS] = [_others(row) for row in frame_rows(rows)]
    order = [*PLACE, OTHERS, *COMPOSED_OF]
    kept = [*order, *view.summary.filter(like="accuracy_").columns, "n_seeds", "stored_floats", *SECONDS]
    shown = rows.sort_values(order)[[*kept, "within_budget", "exempt"]]
    return shown if len(blocks.drop_duplicates(COMPOSED_OF)) > 1 else shown.iloc[:0]


def _others(row: Row) -> str:
    """`labels=hard` of `compose[labels=hard, objective=..., parameterisation=...]`."""
    inside = str(row["method"]).partition("[")[2].removesuffix("]")
    blocks = "|".join(re.escape(f"{name}={row[name]}") for name in COMPOSED_OF)
    return re.sub(rf"(?:^|, )(?:{blocks})(?=, |$)", "", inside).removeprefix(", ")


def _best(rows: list[Row]) -> set[int]:
    """Positions of the best at equal storage of each ipc and evaluation architecture, ties included."""
    found: set[int] = set()
    for where in {(row["ipc"], row["eval_arch"]) for row in rows}:
        fair = [i for i, row in enumerate(rows) if (row["ipc"], row["eval_arch"]) == where and competes(row)]
        values = [tuple(rows[i][f"accuracy_{end}"] for end in ("mean", "ci_low", "ci_high")) for i in fair]
        found |= {i for i, best in zip(fair, tied(values), strict=True) if best}
    return found


def _comparison(dataset: str, protocol: str, rows: list[Row]) -> Comparison:
    best = _best(rows)
    distilled = distillation_architectures(rows)
    objectives = sorted({row["objective"] for row in rows})
    named = ["distill_arch"] * (len(distilled) > 1) + ["eval_arch"] * (
        len({r["eval_arch"] for r in rows}) > 1
    )
    named += [OTHERS] * any(row[OTHERS] for row in rows)
    lines: dict[str, dict[tuple[str, ...], dict[str, TableCell]]] = {}
    for i, row in enumerate(rows):
        line = (*(row[name] for name in named), row["parameterisation"])
        text = percent_cell(row, "accuracy") + budget_mark(row["exempt"], not row["within_budget"])
        lines.setdefault(str(row["ipc"]), {}).setdefault(line, {})[row["objective"]] = TableCell(
            text, i in best
        )
    groups = [
        [
            [
                TableCell(ipc),
                *map(TableCell, line),
                *(cells.get(name, TableCell(MISSING)) for name in objectives),
            ]
            for line, cells in group.items()
        ]
        for ipc, group in lines.items()
    ]
    headers = {"distill_arch": "distilled on", "eval_arch": "evaluated on", OTHERS: OTHERS}
    columns = [TableColumn("ipc"), *(TableColumn(headers[name], left=True) for name in named)]
    columns += [
        TableColumn("parameterisation", left=True),
        *(TableColumn(name, left=True) for name in objectives),
    ]
    notes = [
        f"{ACCURACY} Bold: the best of its ipc and evaluation architecture, and those whose interval "
        "overlaps the best one's.",
        *mark_notes(rows),
    ]
    title = f"Parameterisation by objective: {table_title(dataset, protocol, distilled)}"
    return Comparison(title, columns, groups, notes)


def composition_section(view: RecordsView) -> Section | None:
    """A matrix for each data set and protocol, where the records hold compositions to compare."""
    table = composition_frame(view)
    found = [
        _comparison(dataset, protocol, rows) for dataset, protocol, _, rows in by_dataset_and_protocol(table)
    ]
    return Section("composition", table, found) if found else None
