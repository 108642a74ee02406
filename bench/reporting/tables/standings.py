"""Methods over all cells of a protocol: interquartile mean and mean rank, and every pair tested."""

import math
from collections.abc import Callable

import pandas as pd

from bench.analysis.comparison import SIGNIFICANCE, AccuracyMatrix, compare_pairs
from bench.core.words import count
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables.table import (
    MISSING,
    OVER_BUDGET,
    Comparison,
    TableCell,
    TableColumn,
    budget_mark,
    frame_rows,
    percent_points,
    short_number,
)

MOST_PAIRED = 20  # methods whose pairs are tested: 190 pairs
NOT_WRITTEN = ["over_budget", "best"]  # columns for marks and bold that standings.csv leaves out

# protocol, its cells, its standings, the frame that is shown
MakeTable = Callable[[str, AccuracyMatrix, pd.DataFrame, pd.DataFrame], Comparison]


def _heading(what: str, protocol: str, part: AccuracyMatrix) -> str:
    return f"{what}: {', '.join(sorted(part.cells['dataset'].unique()))}, protocol {protocol}"


def _budget_notes(standings: pd.DataFrame) -> list[str]:
    return [OVER_BUDGET] if standings["over_budget"].any() else []


# --- each method --------------------------------------------------------------------------------------------


def _standing_notes(part: AccuracyMatrix, standings: pd.DataFrame) -> list[str]:
    shared, cells = standings.iloc[0][["n_cells", "cells"]]
    notes = [
        "IQM: interquartile mean of the accuracy in percent over cells (data set, ipc, architectures): the "
        f"{shared} of {cells} that all methods compared here have; students averaged first.",
        "[low, high]: 95 % bootstrap interval over distillation seeds, drawn anew in each cell; none where a "
        "cell has fewer than 3. Bold: the best at equal storage, and those whose interval overlaps its own.",
        "mean rank: over the same cells; a rank is 1 + the number of methods whose interval lies above; "
        "without intervals means decide.",
    ]
    if part.cells["dataset"].nunique() > 1:
        notes.append("Accuracies of different data sets are averaged as they are.")
    if not shared:
        notes.append("No cell is shared by all: nothing is averaged.")
    elif standings["iqm"].isna().any():
        notes.append(f"{MISSING}: in fewer than half of the cells, and so not compared.")
    return notes + _budget_notes(standings)


def _standing(
    protocol: str, part: AccuracyMatrix, standings: pd.DataFrame, shown: pd.DataFrame
) -> Comparison:
    columns = [
        TableColumn("method", left=True),
        TableColumn("IQM", left=True),
        TableColumn("mean rank"),
        TableColumn("cells"),
    ]
    rows = [
        [
            TableCell(row["method"] + budget_mark(exempt=False, over_budget=row["over_budget"])),
            TableCell(percent_points(row["iqm"], row["iqm_ci_low"], row["iqm_ci_high"]), row["best"]),
            TableCell(MISSING if pd.isna(row["mean_rank"]) else f"{row['mean_rank']:.2f}"),
            TableCell(str(row["own_cells"])),
        ]
        for row in frame_rows(shown)
    ]
    title = _heading("Over cells", protocol, part)
    return Comparison(title, columns, [rows], _standing_notes(part, standings), grouped=False)


# --- each pair ----------------------------------------------------------------------------------------------


def _pair_notes(pairs: pd.DataFrame, left_out: int) -> list[str]:
    most_cells = pairs["n_cells"].max()
    least_p = 2.0 ** (1 - most_cells)  # of the signed-rank test, where all differences have one sign
    notes = [
        "difference: mean over the cells that both have, in points. P: the probability that a seed of the "
        "first method beats one of the second, in percent, mean over cells; [low, high]: 95 % bootstrap "
        "interval over seeds, drawn anew in each cell.",
        "p: Wilcoxon's signed-rank test over cells, two-sided; Holm: corrected for "
        f"{count(len(pairs), 'pair')}; bold: under {SIGNIFICANCE}.",
    ]
    if least_p * len(pairs) >= SIGNIFICANCE:
        notes.append(
            f"Too few cells for that test: with {most_cells} no p is under "
            f"{short_number(least_p)}, and no corrected one under {SIGNIFICANCE}."
        )
    if left_out:
        notes.append(
            f"The {MOST_PAIRED} methods with the best interquartile mean; {left_out} more are left out."
        )
    return notes


def _pair_rows(pairs: pd.DataFrame, over: set[str]) -> list[list[list[TableCell]]]:
    """The rows of the table, a group for each first method."""

    def name(method: str) -> TableCell:
        return TableCell(method + budget_mark(exempt=False, over_budget=method in over))

    groups: dict[str, list[list[TableCell]]] = {}
    for row in frame_rows(pairs):
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


def _pairs(protocol: str, part: AccuracyMatrix, standings: pd.DataFrame, shown: pd.DataFrame) -> Comparison:
    columns = [
        TableColumn("first", left=True),
        TableColumn("second", left=True),
        TableColumn("cells", rank=2),
        TableColumn("difference"),
        TableColumn("P(first > second)", left=True),
        TableColumn("p", rank=1),
        TableColumn("Holm"),
    ]
    over = set(standings.loc[standings["over_budget"], "method"])
    notes = _pair_notes(shown, left_out=max(0, len(part.methods) - MOST_PAIRED))
    title = _heading("Pairs", protocol, part)
    return Comparison(title, columns, _pair_rows(shown, over), notes + _budget_notes(standings))


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
    found = {p: standings for p, (part, standings) in view.standings.items() if len(part.cells) > 1}
    return _section(view, "standings", found, _standing)


def pairs_section(view: RecordsView) -> Section | None:
    """Each pair of methods over the cells of a protocol, the better one first."""
    found = {
        protocol: compare_pairs(part, list(standings["method"][:MOST_PAIRED]))
        for protocol, (part, standings) in view.standings.items()
    }
    return _section(view, "pairs", found, _pairs)
