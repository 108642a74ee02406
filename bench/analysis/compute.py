"""Accuracy and floating-point operations: sets on the way, what fits a budget, and how soon methods are good.

Operations of a set are those of its prerequisites, in full, and of its distillation. No torch, no drawing.
"""

from typing import Final

import numpy as np
import pandas as pd

from bench.analysis.aggregate import deduplicate, grouped, snapshot_course
from bench.analysis.best import rank_cells
from bench.records.naming import CELL

WITHIN: Final = 0.05  # of accuracy: who is farther from the best counts nothing in a profile


def cell_operations(flat: pd.DataFrame) -> pd.DataFrame:
    """The operations of each cell: a row each with `CELL`, `operations` and `prepare_operations`.

    Means over seeds; NaN where a seed's were not counted.
    """
    rows = deduplicate(flat)
    rows = rows.assign(operations=rows["prepare_operations"] + rows["distill_operations"])
    cells = grouped(rows, CELL)[["operations", "prepare_operations"]]
    return cells.agg(lambda values: values.mean(skipna=False)).reset_index()


def within_compute(summary: pd.DataFrame, operations: pd.DataFrame, limit: float) -> pd.DataFrame:
    """The rows of a summary, ranked at equal compute.

    Args:
        summary: `aggregate.summary_frame`.
        operations: `cell_operations` of the same records.
        limit: floating-point operations of a set.

    Returns:
        The rows with `operations`, `prepare_operations` and `compute_budget`. What takes more, or was not
        counted, does not compete; nor does what stores more than its ipc allows.
    """
    rows = summary.merge(operations, on=CELL, how="left").assign(compute_budget=limit)
    fits = rows["within_budget"] & (rows["operations"] <= limit)
    ranked = rank_cells(rows.assign(within_budget=fits))
    return ranked.assign(within_budget=rows["within_budget"])


def compute_course(flat: pd.DataFrame) -> pd.DataFrame:
    """Accuracy against the operations spent: of the snapshots and of the sets.

    A snapshot after a tenth of the steps took a tenth of the distillation's operations.

    Args:
        flat: A row per record.

    Returns:
        A row per cell and `fraction` of the distillation: the accuracy over seeds, and `operations` up to it,
        means over seeds. Empty where no operations were counted.
    """
    counted = flat["prepare_operations"].notna() & flat["distill_operations"].notna()
    rows = deduplicate(flat[counted])
    own, prepared = rows["distill_operations"], rows["prepare_operations"]
    points = [
        [(fraction, step, before + fraction * after, accuracy) for fraction, step, _, accuracy in taken]
        or [(1.0, 0, before + after, last)]
        for taken, before, after, last in zip(rows["snapshots"], prepared, own, rows["accuracy"], strict=True)
    ]
    return snapshot_course(rows.assign(snapshots=pd.Series(points, rows.index, dtype=object)), "operations")


def profiles(course: pd.DataFrame, within: float = WITHIN) -> pd.DataFrame:
    """Integrated performance profiles: how near to the best a method is for what it has spent.

    The best of a data set, ipc and evaluation architecture is the best accuracy of all methods there, at any
    cost. A profile at x is the share of these in which the method's last set for the operations is within x
    of the best; integrated, it is the mean over x from 0 to `within`.

    Args:
        course: `compute_course`.
        within: the largest x, a fraction of accuracy.

    Returns:
        A row per protocol, method and `operations` at which its `share` changes; what stores more than its
        ipc allows is left out. Empty where fewer than two methods of a protocol are left.
    """
    found = []
    if len(course):
        fair = course[course["within_budget"] & ~course["exempt"]]
        for protocol, rows in fair.groupby("protocol"):
            if rows["method"].nunique() > 1:
                found.append(_profiles(rows, within).assign(protocol=protocol))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _profiles(rows: pd.DataFrame, within: float) -> pd.DataFrame:
    """The profiles under one protocol."""
    cell = ["dataset", "ipc", "eval_arch"]
    best = rows.groupby(cell)["accuracy_mean"].transform("max")
    gain = (1 - (best - rows["accuracy_mean"]) / within).clip(0, 1)
    rows = rows.assign(gain=gain).sort_values(["operations", "fraction"], kind="stable")
    n_cells = rows.groupby(cell).ngroups
    # of several distillation architectures each is a method's own way to the cell; they share its place
    ways = rows.groupby(["method", *cell])["distill_arch"].transform("nunique")
    of = rows.groupby(["method", *cell, "distill_arch"])["gain"]
    change = (rows["gain"] - of.shift().fillna(0.0)) / ways
    steps = pd.DataFrame({"method": rows["method"], "operations": rows["operations"], "change": change})
    sums = steps.groupby(["method", "operations"])["change"].sum()
    share = sums.groupby("method").cumsum() / n_cells
    return share.clip(0, 1).rename("share").reset_index()


def reached(profile: pd.DataFrame) -> pd.Series:
    """The share that each method of a protocol reaches in the end, the highest first."""
    last = profile.groupby("method")["share"].last()
    order = np.lexsort((last.index, -last))
    return last.iloc[order]
