"""What the leaderboard compares: rows of one data set, ipc, network and protocol, and their reference "
"lines."""

from typing import Final

import pandas as pd

from bench.analysis.compute import cell_operations
from bench.records.naming import CELL
from bench.reporting.plots.pareto import pareto_front

AGREE: Final = ["dataset", "ipc", "eval_arch", "protocol"]  # rows that agree in these compare
RANDOM, FULL = "random_real", "full"  # the reference lines
SPENT: Final = ["prepare_s", "teacher_s", "distill_s", "tune_s"]  # for a set; a protocol's teacher included


def leaderboard_frame(summary: pd.DataFrame, flat: pd.DataFrame) -> pd.DataFrame:
    """The summary with what only a leaderboard shows.

    Args:
        summary: `aggregate.summary_frame`.
        flat: the records that it is made of.

    Returns:
        The rows with `seconds` and `operations` of a set with its prerequisites, `reference` (whether it is a
        reference line), `random` and `full` (mean accuracies of the lines, NaN where there is none), and
        `front_seconds` and `front_operations` (whether nothing that competes is better and cheaper).
    """
    rows = summary.merge(cell_operations(flat), on=CELL, how="left")
    rows = rows.assign(seconds=rows[SPENT].sum(axis=1), reference=rows["method"].isin([RANDOM, FULL]))
    everywhere = [name for name in AGREE if name != "ipc"]
    rows = rows.merge(_line(rows, RANDOM, AGREE, "random"), on=AGREE, how="left")
    rows = rows.merge(_line(rows, FULL, everywhere, "full"), on=everywhere, how="left")
    for cost in ("seconds", "operations"):
        rows[f"front_{cost}"] = False
        for _, part in rows[rows["competes"]].groupby(AGREE):
            rows.loc[part.index, f"front_{cost}"] = pareto_front(part[cost], part["accuracy_mean"])
    return rows


def _line(rows: pd.DataFrame, method: str, names: list[str], called: str) -> pd.DataFrame:
    means = rows[rows["method"] == method].groupby(names, dropna=False)["accuracy_mean"].mean()
    return means.rename(called).reset_index()
