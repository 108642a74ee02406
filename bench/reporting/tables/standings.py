"""Methods over the data sets and ipcs of a protocol: mean and ranks, and every pair compared."""

from collections.abc import Callable

import pandas as pd

from bench.analysis.best import SIGNIFICANCE
from bench.analysis.comparison import LEAST_UNITS, AccuracyMatrix, compare_pairs
from bench.analysis.intervals import LEAST_SEEDS
from bench.core.words import count
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables.table import (
    BOLD,
    MISSING,
    OVER_BUDGET,
    RANK,
    Comparison,
    TableCell,
    TableColumn,
    budget_mark,
    frame_rows,
    percent_points,
    rank_cell,
    short_number,
)

MOST_PAIRED = 20  # methods whose pairs are compared: 190 pairs
NOT_WRITTEN = ["over_budget", "best"]  # columns for marks and bold that standings.csv leaves out

# protocol, its accuracies, its standings, the frame that is shown
MakeTable = Callable[[str, AccuracyMatrix, pd.DataFrame, pd.DataFrame], Comparison]


def _heading(what: str, protocol: str, matrix: AccuracyMatrix) -> str:
    return f"{what}: {', '.join(sorted(matrix.cells['dataset'].unique()))}, protocol {protocol}"


def _budget_notes(standings: pd.DataFrame) -> list[str]:
    return [OVER_BUDGET] if standings["over_budget"].any() else []


# --- each method --------------------------------------------------------------------------------------------


def _standing_notes(matrix: AccuracyMatrix, standings: pd.DataFrame) -> list[str]:
    shared, units, cells = standings.iloc[0][["n_cells", "n_units", "cells"]]
    notes = [
        f"mean: of the accuracy in percent over {count(units, 'unit')} (data set and ipc), each the mean of "
        f"its evaluation architectures: the {shared} of {cells} cells that all methods compared here have; "
        "students averaged first.",
        "[low, high]: 95 % interval over distillation seeds, on these units and not on others; none where "
        f"a unit has fewer than {LEAST_SEEDS} seeds. {BOLD}",
        f"{RANK} mean rank: over units, by their means.",
    ]
    if matrix.cells["dataset"].nunique() > 1:
        notes.append("Accuracies of different data sets are averaged as they are.")
    if not shared:
        notes.append("No cell is shared by all: nothing is averaged.")
    elif standings["mean"].isna().any():
        notes.append(f"{MISSING}: in fewer than half of the cells, and so not compared.")
    return notes + _budget_notes(standings)


def _standing(
    protocol: str, matrix: AccuracyMatrix, standings: pd.DataFrame, shown: pd.DataFrame
) -> Comparison:
    columns = [
        TableColumn("method", left=True),
        TableColumn("mean", left=True),
        TableColumn("rank"),
        TableColumn("mean rank"),
        TableColumn("cells"),
    ]
    rows = [
        [
            TableCell(row["method"] + budget_mark(exempt=False, over_budget=row["over_budget"])),
            TableCell(percent_points(row["mean"], row["ci_low"], row["ci_high"]), row["best"]),
            rank_cell(row),
            TableCell(MISSING if pd.isna(row["mean_rank"]) else f"{row['mean_rank']:.2f}"),
            TableCell(str(row["own_cells"])),
        ]
        for row in frame_rows(shown)
    ]
    title = _heading("Over data sets and ipcs", protocol, matrix)
    return Comparison(title, columns, [rows], _standing_notes(matrix, standings), grouped=False)


# --- each pair ----------------------------------------------------------------------------------------------


def _pair_notes(pairs: pd.DataFrame, left_out: int) -> list[str]:
    notes = [
        "difference: mean over the units (data set and ipc) that both have, in points; [low, high]: 95 % "
        "interval over distillation seeds, on these units and not on others.",
    ]
    if pairs["p"].notna().any():
        notes.append(
            "p: Wilcoxon's signed-rank test over units, two-sided; Holm: corrected for "
            f"{count(len(pairs), 'pair')}; bold: under {SIGNIFICANCE}."
        )
    if pairs["n_units"].min() < LEAST_UNITS:
        notes.append(
            f"No p-value below {LEAST_UNITS} units: with fewer no test over data sets and ipcs can find "
            "anything."
        )
    if left_out:
        notes.append(f"The {MOST_PAIRED} methods with the best mean; {left_out} more are left out.")
    return notes


def _pair_rows(pairs: pd.DataFrame, tested: bool) -> list[list[list[TableCell]]]:
    """The rows of the table, a group for each first method."""
    groups: dict[str, list[list[TableCell]]] = {}
    for row in frame_rows(pairs):
        difference = percent_points(row["difference"], row["ci_low"], row["ci_high"], signed=True)
        cells = [TableCell(row["first"]), TableCell(row["second"]), TableCell(str(row["n_units"]))]
        cells.append(TableCell(difference))
        if tested:
            cells.append(TableCell(short_number(row["p"])))
            cells.append(TableCell(short_number(row["p_holm"]), bool(row["p_holm"] < SIGNIFICANCE)))
        groups.setdefault(row["first"], []).append(cells)
    return list(groups.values())


def _pairs(protocol: str, matrix: AccuracyMatrix, standings: pd.DataFrame, shown: pd.DataFrame) -> Comparison:
    tested = bool(shown["p"].notna().any())
    columns = [
        TableColumn("first", left=True),
        TableColumn("second", left=True),
        TableColumn("units", rank=2),
        TableColumn("difference", left=True),
        *([TableColumn("p", rank=1), TableColumn("Holm")] if tested else []),
    ]
    left_out = max(0, int((~standings["over_budget"]).sum()) - MOST_PAIRED)
    title = _heading("Pairs", protocol, matrix)
    return Comparison(title, columns, _pair_rows(shown, tested), _pair_notes(shown, left_out))


# --- sections -----------------------------------------------------------------------------------------------


def _section(
    view: RecordsView, stem: str, frames: dict[str, pd.DataFrame], make_table: MakeTable
) -> Section | None:
    """A section with a table for each protocol in `frames`; None without any."""
    if not frames:
        return None
    tables = [make_table(protocol, *view.standings[protocol], shown) for protocol, shown in frames.items()]
    written = pd.concat([shown.assign(protocol=protocol) for protocol, shown in frames.items()])
    return Section(
        stem, written.drop(columns=NOT_WRITTEN, errors="ignore"), tables, printed=stem == "standings"
    )


def standings_section(view: RecordsView) -> Section | None:
    """Each method over the cells of a protocol that has several."""
    found = {p: standings for p, (matrix, standings) in view.standings.items() if len(matrix.cells) > 1}
    return _section(view, "standings", found, _standing)


def pairs_section(view: RecordsView) -> Section | None:
    """Each pair of methods that compete under a protocol, the better one first."""
    fair = {p: standings[~standings["over_budget"]] for p, (_, standings) in view.standings.items()}
    found = {
        protocol: compare_pairs(view.standings[protocol][0], list(rows["method"][:MOST_PAIRED]))
        for protocol, rows in fair.items()
        if len(rows) > 1
    }
    return _section(view, "pairs", found, _pairs)
