"""What a composition is made of: parameterisation by objective."""

import re

import pandas as pd

from bench.aggregate import SECONDS
from bench.report import layout
from bench.report.exhibit import Exhibit, View
from bench.report.layout import MISSING, Cell, Column, Comparison, Row, percent
from bench.rows import BLOCKS

OTHERS = "variant"  # what else tells two compositions apart
PLACE = ["dataset", "protocol", "ipc", "distill_arch", "eval_arch"]


def gather(view: View) -> pd.DataFrame:
    """The rows of the summary that are compositions, with their blocks; none without two to compare."""
    blocks = view.flat.loc[view.flat["parameterisation"].notna(), ["method", *BLOCKS]].drop_duplicates()
    rows = view.summary.merge(blocks, on="method")
    rows[OTHERS] = [_others(row) for row in layout.rows(rows)]
    order = [*PLACE, OTHERS, *BLOCKS]
    kept = [*order, *view.summary.filter(like="accuracy_").columns, "n_seeds", "stored_floats", *SECONDS]
    shown = rows.sort_values(order)[[*kept, "within_budget", "exempt"]]
    return shown if len(blocks.drop_duplicates(BLOCKS)) > 1 else shown.iloc[:0]


def _others(row: Row) -> str:
    """`labels=hard` of `compose[labels=hard, objective=..., parameterisation=...]`."""
    inside = str(row["method"]).partition("[")[2].removesuffix("]")
    blocks = "|".join(re.escape(f"{name}={row[name]}") for name in BLOCKS)
    return re.sub(rf"(?:^|, )(?:{blocks})(?=, |$)", "", inside).removeprefix(", ")


def _best(rows: list[Row]) -> set[int]:
    """Positions of the best at equal storage of each ipc and evaluation architecture, ties included."""
    found: set[int] = set()
    for where in {(row["ipc"], row["eval_arch"]) for row in rows}:
        fair = [
            i
            for i, row in enumerate(rows)
            if (row["ipc"], row["eval_arch"]) == where and layout.competes(row)
        ]
        values = [tuple(rows[i][f"accuracy_{end}"] for end in ("mean", "ci_low", "ci_high")) for i in fair]
        found |= {i for i, best in zip(fair, layout.tied(values), strict=True) if best}
    return found


def _comparison(dataset: str, protocol: str, rows: list[Row]) -> Comparison:
    best = _best(rows)
    distilled = layout.distilled_on(rows)
    objectives = sorted({row["objective"] for row in rows})
    named = ["distill_arch"] * (len(distilled) > 1) + ["eval_arch"] * (
        len({r["eval_arch"] for r in rows}) > 1
    )
    named += [OTHERS] * any(row[OTHERS] for row in rows)
    lines: dict[str, dict[tuple[str, ...], dict[str, Cell]]] = {}
    for i, row in enumerate(rows):
        line = (*(row[name] for name in named), row["parameterisation"])
        text = percent(row, "accuracy") + layout.mark(row["exempt"], not row["within_budget"])
        lines.setdefault(str(row["ipc"]), {}).setdefault(line, {})[row["objective"]] = Cell(text, i in best)
    groups = [
        [
            [Cell(ipc), *map(Cell, line), *(cells.get(name, Cell(MISSING)) for name in objectives)]
            for line, cells in group.items()
        ]
        for ipc, group in lines.items()
    ]
    headers = {"distill_arch": "distilled on", "eval_arch": "evaluated on", OTHERS: OTHERS}
    columns = [Column("ipc"), *(Column(headers[name], left=True) for name in named)]
    columns += [Column("parameterisation", left=True), *(Column(name, left=True) for name in objectives)]
    notes = [
        f"{layout.ACCURACY} Bold: the best of its ipc and evaluation architecture, and those whose interval "
        "overlaps the best one's.",
        *layout.mark_notes(rows),
    ]
    title = f"Parameterisation by objective: {layout.title(dataset, protocol, distilled)}"
    return Comparison(title, columns, groups, notes)


def exhibit(view: View) -> Exhibit | None:
    """A matrix for each data set and protocol, where the records hold compositions to compare."""
    table = gather(view)
    found = [_comparison(dataset, protocol, rows) for dataset, protocol, _, rows in layout.sections(table)]
    return Exhibit("composition", table, found) if found else None
