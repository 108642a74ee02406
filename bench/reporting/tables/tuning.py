"""Tunings: what trials found on the hold-out, and tuned against untuned methods on fresh seeds."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from bench.analysis.tuning import tuned_against_default, tuning_course, tuning_summary
from bench.core.words import flop
from bench.records.columns import Row
from bench.records.trial import TrialRecord, load_trials
from bench.reporting.plots.tuning import best_so_far
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables.table import (
    ACCURACY,
    MISSING,
    RANK,
    Comparison,
    Reader,
    TableCell,
    TableColumn,
    distilled_on_cell,
    frame_rows,
    number_range,
    percent_cell,
    percent_points,
    short_number,
    table_by_ipc,
)

HELD_OUT = (
    "Percent of held-out training images: the best of several trials, so it flatters; compare on fresh seeds."
)
EARLY = "stopped: worse at 10, 20 or 50 % of the distillation than half of the trials before it."
DIFFERENCE = (
    "difference: tuned less untuned, with the 95 % interval (Welch's), from 3 seeds on; bold: above zero."
)
BOTH_RANKS = f"{RANK} Untuned and tuned methods are ranked apart; what has nothing to tune stands in both."


def _points(name: str) -> Reader:
    return lambda row: TableCell(percent_points(row[name], float("nan"), float("nan")))


def _count(name: str) -> Reader:
    return lambda row: TableCell(f"{row[name]:,}")


def _best_trial(row: Row) -> TableCell:
    return TableCell({-1: MISSING, 0: "untuned"}.get(row["best_trial"], str(row["best_trial"])))


SUMMARY: list[tuple[TableColumn, Reader]] = [
    (TableColumn("method", left=True), lambda row: TableCell(row["method"])),
    (TableColumn("untuned"), _points("default")),
    (TableColumn("tuned"), _points("best")),
    (TableColumn("best trial"), _best_trial),
    (TableColumn("trials"), _count("trials")),
    (TableColumn("stopped"), _count("stopped")),
    (TableColumn("failed"), _count("failed")),
    (TableColumn("operations", rank=1), lambda row: TableCell(flop(row["operations"]))),
    (TableColumn("distill s", rank=2), lambda row: TableCell(short_number(row["seconds"]))),
]


def _side(side: str) -> Reader:
    def read(row: Row) -> TableCell:
        names = ("accuracy_mean", "accuracy_std", "accuracy_ci_low", "accuracy_ci_high")
        return TableCell(percent_cell({name: row[f"{name}_{side}"] for name in names}, "accuracy"))

    return read


def _place(side: str) -> Reader:
    def read(row: Row) -> TableCell:
        rank, last = row[f"rank_{side}"], row[f"rank_to_{side}"]
        return TableCell(MISSING if pd.isna(rank) else number_range([int(rank), int(last)]))

    return read


def _difference(row: Row) -> TableCell:
    low, high = row["difference_ci_low"], row["difference_ci_high"]
    if row["same_values"]:
        return TableCell("same values")
    return TableCell(percent_points(row["difference"], low, high, signed=True), bold=bool(low > 0))


TUNED: list[tuple[TableColumn, Reader]] = [
    (TableColumn("method", left=True), lambda row: TableCell(row["method"])),
    (TableColumn("distilled on", left=True, rank=2), lambda row: distilled_on_cell(row["distill_arch"])),
    (TableColumn("untuned", left=True, accuracy=True), _side("default")),
    (TableColumn("rank", rank=1), _place("default")),
    (TableColumn("tuned", left=True, accuracy=True), _side("tuned")),
    (TableColumn("rank", rank=1), _place("tuned")),
    (TableColumn("difference", left=True), _difference),
]


def folder_trials(folders: Sequence[Path]) -> list[TrialRecord]:
    """The trials of result folders."""
    return [trial for folder in folders for trial in load_trials(folder)[0]]


def trial_sections(trials: Sequence[TrialRecord]) -> list[Section]:
    """What each method's trials found and took, and the course of it; empty without trials with a result."""
    course = tuning_course(trials)
    if not len(course):
        return []
    table, tables = tuning_summary(trials), []
    for dataset, part in table.groupby("dataset"):
        title = f"Tuning on {dataset}, {part['holdout'].iloc[0]:.0%} of the training set held out"
        tables.append(table_by_ipc(title, SUMMARY, frame_rows(part), [HELD_OUT, EARLY]))
    plots: dict[str, Callable[[], Figure]] = {}
    if course["best"].notna().any():
        plots["tuning_trials"] = partial(best_so_far, course, "trials")
        plots["tuning_operations"] = partial(best_so_far, course, "operations")
    return [Section("tuning", table, tables, printed=True), Section("tuning_course", course, plots=plots)]


def tuning_section(view: RecordsView) -> Section | None:
    """What the trials in the report's folders found and took."""
    return next(iter(trial_sections(folder_trials(view.folders))), None)


def tuning_course_section(view: RecordsView) -> Section | None:
    """The best trial so far against trials and operations."""
    return next(iter(trial_sections(folder_trials(view.folders))[1:]), None)


def tuned_section(view: RecordsView) -> Section | None:
    """Tuned against untuned methods, where the records hold both."""
    trials = folder_trials(view.folders)
    table = tuned_against_default(view.flat, trials) if trials else pd.DataFrame()
    tables: list[Comparison] = []
    if not len(table):
        return None
    for (dataset, protocol, arch), part in table.groupby(["dataset", "protocol", "eval_arch"]):
        title = f"Tuned against untuned: {dataset}, protocol {protocol}, scored on {arch}"
        notes = [ACCURACY, DIFFERENCE, BOTH_RANKS]
        tables.append(table_by_ipc(title, TUNED, frame_rows(part), notes))
    return Section("tuned", table, tables, printed=True)
