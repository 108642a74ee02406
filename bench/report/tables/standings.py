"""Methods over all cells of a protocol: interquartile mean and mean rank, and every pair tested."""

import math
from collections.abc import Callable

import pandas as pd

from bench.analysis.comparison import SIGNIFICANCE, AccuracyMatrix, compare_pairs
from bench.core.words import count
from bench.records.columns import Row
from bench.report.sections import RecordsView, Section
from bench.report.tables.table import (
    MISSING,
    OVER_BUDGET,
    Comparison,
    TableCell,
    TableColumn,
    budget_mark,
    frame_rows,
    percent_points,
    short_number,
    tied,
)

MOST_PAIRED = 20  # methods whose pairs are tested: 190 pairs
MakeTables = Callable[[RecordsView, str, AccuracyMatrix, pd.DataFrame], Comparison]


def _heading(what: str, protocol: str, part: AccuracyMatrix) -> str:
    return f"{what}: {', '.join(sorted(part.cells['dataset'].unique()))}, protocol {protocol}"


def over_budget(view: RecordsView, part: AccuracyMatrix) -> set[str]:
    """The methods that store more than their ipc allows in one of these cells."""
    rows = view.summary.merge(part.cells[["dataset", "protocol"]].drop_duplicates())
    return set(rows.loc[~rows["exempt"] & ~rows["within_budget"], "method"])


def _budget_notes(over: set[str], part: AccuracyMatrix) -> list[str]:
    return [OVER_BUDGET] if over & set(part.methods) else []


# --- each method --------------------------------------------------------------------------------------------


def _best(rows: list[Row], over: set[str]) -> set[str]:
    """The best at equal storage, and what cannot be told from it."""
    fair = [row for row in rows if row["method"] not in over]
    best = tied([(row["iqm"], row["iqm_ci_low"], row["iqm_ci_high"]) for row in fair])
    return {row["method"] for row, is_best in zip(fair, best, strict=True) if is_best}


def _standing_notes(part: AccuracyMatrix, table: pd.DataFrame) -> list[str]:
    shared, cells = table.iloc[0][["n_cells", "cells"]]
    several = part.cells["dataset"].nunique() > 1
    notes = [
        "IQM: interquartile mean of the accuracy in percent over cells (data set, ipc, architectures): the "
        f"{shared} of {cells} that all methods compared here have; students averaged first.",
        "[low, high]: 95 % bootstrap interval over distillation seeds, drawn anew in each cell; none where a "
        "cell has fewer than 3. Bold: the best at equal storage, and those whose interval overlaps its own.",
        "mean rank: over the same cells; a rank is 1 + the number of methods whose interval lies above; "
        "without intervals means decide.",
    ]
    if several:
        notes.append("Accuracies of different data sets are averaged as they are.")
    if not shared:
        notes.append("No cell is shared by all: nothing is averaged.")
    elif table["iqm"].isna().any():
        notes.append(f"{MISSING}: in fewer than half of the cells, and so not compared.")
    return notes


def _standing(view: RecordsView, protocol: str, part: AccuracyMatrix, table: pd.DataFrame) -> Comparison:
    over = over_budget(view, part)
    rows = frame_rows(table)
    best = _best(rows, over)
    columns = [
        TableColumn("method", left=True),
        TableColumn("IQM", left=True),
        TableColumn("mean rank"),
        TableColumn("cells"),
    ]
    drawn = [
        [
            TableCell(row["method"] + budget_mark(False, row["method"] in over)),
            TableCell(
                percent_points(row["iqm"], row["iqm_ci_low"], row["iqm_ci_high"]),
                row["method"] in best,
            ),
            TableCell(MISSING if pd.isna(row["mean_rank"]) else f"{row['mean_rank']:.2f}"),
            TableCell(str(row["own_cells"])),
        ]
        for row in rows
    ]
    notes = _standing_notes(part, table) + _budget_notes(over, part)
    return Comparison(_heading("Over cells", protocol, part), columns, [drawn], notes, grouped=False)


# --- each pair ----------------------------------------------------------------------------------------------


def _pair_notes(table: pd.DataFrame, left_out: int) -> list[str]:
    least, most = 2.0 ** (1 - table["n_cells"].max()), len(table)
    notes = [
        "difference: mean over the cells that both have, in points. P: the probability that a seed of the "
        "first method beats one of the second, in percent, mean over cells; [low, high]: 95 % bootstrap "
        "interval over seeds, drawn anew in each cell.",
        "p: Wilcoxon's signed-rank test over cells, two-sided; Holm: corrected for "
        f"{count(most, 'pair')}; bold: under {SIGNIFICANCE}.",
    ]
    if least * most >= SIGNIFICANCE:
        notes.append(
            f"Too few cells for that test: with {table['n_cells'].max()} no p is under "
            f"{short_number(least)}, and no corrected one under {SIGNIFICANCE}."
        )
    if left_out:
        notes.append(
            f"The {MOST_PAIRED} methods with the best interquartile mean; {left_out} more are left out."
        )
    return notes


def _pair_rows(table: pd.DataFrame, over: set[str]) -> list[list[list[TableCell]]]:
    def name(method: str) -> TableCell:
        return TableCell(method + budget_mark(False, method in over))

    groups: dict[str, list[list[TableCell]]] = {}
    for row in frame_rows(table):
        difference = percent_points(row["difference"], math.nan, math.nan, signed=True)
        groups.setdefault(row["first"], []).append([
            name(row["first"]),
            name(row["second"]),
            TableCell(str(row["n_cells"])),
            TableCell(difference),
            TableCell(percent_points(row["improvement"], row["ci_low"], row["ci_high"])),
            TableCell(short_number(row["p"])),
            TableCell(short_number(row["p_holm"]), bool(row["p_holm"] < SIGNIFICANCE)),
        ])  # fmt: skip
    return list(groups.values())


def _pairs(view: RecordsView, protocol: str, part: AccuracyMatrix, table: pd.DataFrame) -> Comparison:
    over = over_budget(view, part)
    columns = [
        TableColumn("first", left=True),
        TableColumn("second", left=True),
        TableColumn("cells", rank=2),
    ]
    columns += [
        TableColumn("difference"),
        TableColumn("P(first > second)", left=True),
        TableColumn("p", rank=1),
        TableColumn("Holm"),
    ]
    notes = _pair_notes(table, max(0, len(part.methods) - MOST_PAIRED)) + _budget_notes(over, part)
    return Comparison(_heading("Pairs", protocol, part), columns, _pair_rows(table, over), notes)


# --- exhibits -----------------------------------------------------------------------------------------------


def _exhibit(
    view: RecordsView, stem: str, tables: list[tuple[str, AccuracyMatrix, pd.DataFrame]], draw: MakeTables
) -> Section | None:
    if not tables:
        return None
    frame = pd.concat([table.assign(protocol=protocol) for protocol, _, table in tables])
    drawn = [draw(view, protocol, part, table) for protocol, part, table in tables]
    return Section(stem, frame, drawn, printed=stem == "standings")


def standings_section(view: RecordsView) -> Section | None:
    """Each method over the cells of a protocol that has several."""
    found = view.standings.items()
    tables = [(protocol, part, table) for protocol, (part, table) in found if len(part.cells) > 1]
    return _exhibit(view, "standings", tables, _standing)


def pairs_section(view: RecordsView) -> Section | None:
    """Each pair of methods over the cells of a protocol, the better one first."""
    tables = [
        (protocol, part, compare_pairs(part, list(table["method"][:MOST_PAIRED])))
        for protocol, (part, table) in view.standings.items()
    ]
    return _exhibit(view, "pairs", tables, _pairs)
