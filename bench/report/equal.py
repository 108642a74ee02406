"""Equal storage only: what fits the budget of its ipc, ranked."""

import numpy as np
import pandas as pd

from bench.report import layout
from bench.report.exhibit import Exhibit, View
from bench.report.layout import MISSING, Cell, Column, Comparison, Reader, Row, number, percent
from bench.statistics import EXACT, tied_ranks

COMPARED = ["dataset", "protocol", "ipc", "eval_arch"]  # what is ranked together
BOUNDS = ["accuracy_mean", "accuracy_ci_low", "accuracy_ci_high"]


def ranked(summary: pd.DataFrame) -> pd.DataFrame:
    """What competes at equal storage, its `rank` in the cell, and whether it is `best`, ties included."""
    fair = summary[summary["within_budget"] & ~summary["exempt"]].reset_index(drop=True)
    rank, best = np.zeros(len(fair)), np.zeros(len(fair), bool)
    for rows in fair.groupby(COMPARED).indices.values():
        values = fair.loc[rows, BOUNDS].round(EXACT)
        rank[rows] = tied_ranks(*values.to_numpy(float).T)
        best[rows] = layout.tied([(m, low, high) for m, low, high in values.itertuples(index=False)])
    return fair.assign(rank=rank.astype(int), best=best)


def _lines(rows: list[Row], archs: list[str]) -> list[Row]:
    """A row per method, ipc and distillation architecture, `accuracy` by evaluation architecture."""
    found: dict[tuple[int, str, str], Row] = {}
    for row in rows:
        line = found.setdefault((row["ipc"], row["method"], row["distill_arch"]), {**row, "on": {}})
        line["on"][row["eval_arch"]] = row
    for line in found.values():
        ranks = [row["rank"] for row in line["on"].values()]
        line["rank"] = np.mean(ranks) if len(ranks) == len(archs) else np.nan

    def order(line: Row) -> tuple[float, float, str]:
        first = line["on"].get(archs[0])
        mean = -first["accuracy_mean"] if first else 1.0
        return np.nan_to_num(line["rank"], nan=np.inf), mean, line["method"]

    return sorted(found.values(), key=order)


def _accuracy(arch: str) -> Reader:
    def read(line: Row) -> Cell:
        row = line["on"].get(arch)
        return Cell(MISSING) if row is None else Cell(percent(row, "accuracy"), row["best"])

    return read


def _rank(digits: int) -> Reader:
    return lambda line: Cell(MISSING if np.isnan(line["rank"]) else f"{line['rank']:.{digits}f}")


def _left_out(rows: list[Row]) -> list[str]:
    """What stores more than it may, by method."""
    stored: dict[str, dict[int, float]] = {}
    for row in rows:
        if not row["exempt"] and not row["within_budget"]:
            stored.setdefault(row["method"], {})[row["ipc"]] = row["ipc_equivalent"]
    texts = [
        f"{method} ({', '.join(f'{number(much)} at ipc {ipc}' for ipc, much in sorted(by_ipc.items()))})"
        for method, by_ipc in stored.items()
    ]
    return [f"Left out, with the ipc that it stores: {', '.join(texts)}."] if texts else []


def _comparison(dataset: str, protocol: str, rows: list[Row], all_rows: list[Row]) -> Comparison:
    distilled = layout.distilled_on(rows)
    archs = layout.familiar_first({row["eval_arch"] for row in rows}, distilled)
    several = len(archs) > 1
    columns = [
        (Column("mean rank" if several else "rank"), _rank(1 if several else 0)),
        *layout.who(distilled),
        *((Column(arch, left=True, accuracy=True), _accuracy(arch)) for arch in archs),
        (Column("stored ipc", rank=1), lambda line: Cell(number(line["ipc_equivalent"]).removesuffix(".0"))),
    ]
    notes = [
        f"Only what fits the budget of its ipc. {layout.ACCURACY} Bold: the best of its ipc, and those whose "
        "interval overlaps the best one's.",
        "rank: 1 + the number of methods whose interval lies above the method's own; without intervals means "
        "decide." + (f" Mean over the architectures; {MISSING}: not scored on all." if several else ""),
        *_left_out(all_rows),
    ]
    title = f"Equal storage: {layout.title(dataset, protocol, distilled)}"
    return layout.lay_out(title, columns, _lines(rows, archs), notes)


def exhibit(view: View) -> Exhibit | None:
    """A table for each data set and protocol under which several methods fit their budget."""
    table = ranked(view.summary)
    everything = {(d, p): rows for d, p, _, rows in layout.sections(view.summary)}
    found = [
        _comparison(dataset, protocol, rows, everything[dataset, protocol])
        for dataset, protocol, part, rows in layout.sections(table)
        if part["method"].nunique() > 1
    ]
    shown = ["rank", "best"]
    ordered = table[[*table.columns.drop(shown), *shown]]
    return Exhibit("equal_storage", ordered, found) if found else None
