"""Distilled or well-chosen real images, by label regime: a verdict for each, and what every set took."""

from collections.abc import Iterator

import pandas as pd

from bench.analysis.devices import several_devices
from bench.analysis.real_or_distilled import BETTER, REAL, WORSE, best_of, sets_by_regime, verdict_of
from bench.core.words import flop
from bench.records.columns import Row
from bench.records.naming import LABELS
from bench.reporting.plots.real_or_distilled import regime_plots
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables.table import (
    ACCURACY,
    MISSING,
    Comparison,
    Reader,
    TableCell,
    TableColumn,
    frame_rows,
    percent_points,
    short_number,
    table_by_ipc,
    with_interval,
)

MARKS = {BETTER: " >", WORSE: " <"}  # behind an accuracy
VERDICT = (
    "verdict: of sets that fit their budget, by one test for all pairs (5 %). Distilled better: one "
    "distilled set is told apart from every real one; real better: the other way round. Behind a verdict, "
    "the best distilled set less the best real one, in points."
)
MARKED = (
    "Behind an accuracy: > better than every set of real images at equal storage, < worse than one of them "
    "(one test for all pairs, 5 %); without a mark not told apart. ‡ stores more than its ipc allows, as "
    "weights and labels of its own do, and is not compared; nor are soft labels of more images than ipc."
)
SIZES = (
    "KiB: what is stored, at fp32; soft KiB: with a probability vector for each image. s: preparation "
    "(scores, experts) and distillation; operations: of both, counted from shapes; labels s: the teacher "
    "and what a hold-out chooses, charged in full to each set."
)


def verdicts_section(view: RecordsView) -> Section | None:
    """Where several label regimes were asked for: a verdict for each data set, network, ipc and regime."""
    sets = _with_verdicts(view)
    if sets is None:
        return None
    rows = _verdict_rows(sets)
    return Section("verdicts", pd.DataFrame(rows), [_verdicts(_regimes(sets), rows)], printed=True)


def real_or_distilled_section(view: RecordsView) -> Section | None:
    """The sets behind the verdicts: a table and a figure for each data set, protocol and network."""
    sets = _with_verdicts(view)
    if sets is None:
        return None
    parts = list(_networks(sets))
    plots = {stem: draw for title, part in parts for stem, draw in regime_plots(title, part).items()}
    return Section("real_or_distilled", sets, [_sets(title, part) for title, part in parts], plots)


def _with_verdicts(view: RecordsView) -> pd.DataFrame | None:
    sets = sets_by_regime(view.flat, view.summary)
    return None if sets.empty or not sets["verdict"].ne("").any() else sets


def _networks(sets: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for (dataset, protocol, arch), part in sets.groupby(["dataset", "protocol", "eval_arch"]):
        yield f"{dataset}, protocol {protocol}, {arch}", part


def _regimes(sets: pd.DataFrame) -> list[str]:
    there = set(sets["labels"])
    return [labels for labels in (*LABELS[1:], LABELS[0]) if labels in there]


# --- verdicts -----------------------------------------------------------------------------------------------


def _verdict_rows(sets: pd.DataFrame) -> list[Row]:
    """A row for each data set, protocol, network and ipc; a verdict for each regime."""
    rows: list[Row] = []
    for (dataset, protocol, arch, ipc), part in sets.groupby(["dataset", "protocol", "eval_arch", "ipc"]):
        row: Row = {"dataset": dataset, "protocol": protocol, "eval_arch": arch, "ipc": ipc}
        rows.append(row | {str(labels): _verdict(rest) for labels, rest in part.groupby("labels")})
    return rows


def _verdicts(regimes: list[str], rows: list[Row]) -> Comparison:
    def read(name: str) -> Reader:
        return lambda row: TableCell(str(row.get(name, MISSING)))

    named = {"dataset": "dataset", "protocol": "protocol", "eval_arch": "network"}
    named |= {labels: f"{labels} labels" for labels in regimes if labels != "stored"}
    columns = [(TableColumn(header, left=True), read(name)) for name, header in named.items()]
    return table_by_ipc("Distilled or well-chosen real images", columns, rows, [VERDICT])


def _verdict(part: pd.DataFrame) -> str:
    """For example `distilled better: idc +3.2 over el2n`."""
    distilled, real = best_of(part, ["distilled"]), best_of(part, REAL)
    if distilled is None or real is None:
        return MISSING
    gap = percent_points(
        distilled["accuracy_mean"] - real["accuracy_mean"], float("nan"), float("nan"), signed=True
    )
    return f"{verdict_of(part)}: {distilled['method']} {gap} over {real['method']}"


# --- sets ---------------------------------------------------------------------------------------------------


def _accuracy(labels: str) -> Reader:
    def read(line: Row) -> TableCell:
        row = line["under"].get(labels)
        if row is None:
            return TableCell(MISSING)
        mean, low, high = (100 * row[f"accuracy_{part}"] for part in ("mean", "ci_low", "ci_high"))
        over = "" if row["equal_storage"] else " ‡"
        return TableCell(with_interval(mean, low, high, 1) + MARKS.get(row["verdict"], "") + over)

    return read


def _least(name: str) -> Reader:
    def read(line: Row) -> TableCell:
        return TableCell(str(min(row[name] for row in line["under"].values())))

    return read


def _of(labels: str, name: str, scale: float) -> Reader:
    def read(line: Row) -> TableCell:
        row = line["under"].get(labels)
        return TableCell(MISSING if row is None else short_number(row[name] / scale))

    return read


def _spent(*names: str) -> Reader:
    def read(line: Row) -> TableCell:
        return TableCell(
            short_number(max(sum(row[name] for name in names) for row in line["under"].values()))
        )

    return read


def _operations(line: Row) -> TableCell:
    counted = [row["operations"] for row in line["under"].values() if not pd.isna(row["operations"])]
    return TableCell(flop(max(counted)) if counted else MISSING)


def _sets(title: str, part: pd.DataFrame) -> Comparison:
    """A row for each set; the regimes beside each other."""
    regimes = _regimes(part)
    lines: dict[tuple[int, str, str], Row] = {}
    for row in frame_rows(part):
        place = (row["ipc"], row["method"], row["distill_arch"])
        lines.setdefault(place, {**row, "under": {}})["under"][row["labels"]] = row
    first = regimes[0]

    def order(line: Row) -> tuple[float, str]:
        row = line["under"].get(first)
        return -row["accuracy_mean"] if row else 1.0, line["method"]

    columns = [
        (TableColumn("images", left=True), lambda line: TableCell(line["kind"])),
        (TableColumn("method", left=True), lambda line: TableCell(line["method"])),
        *((TableColumn(f"{labels} labels", left=True), _accuracy(labels)) for labels in regimes),
        (TableColumn("KiB", rank=1), _of(first, "stored_bytes", 1024)),
        *(
            [(TableColumn("soft KiB", rank=2), _of("soft", "stored_bytes", 1024))]
            if "soft" in regimes
            else []
        ),
        (TableColumn("s", rank=1), _spent("prepare_s", "distill_s")),
        *([(TableColumn("operations", rank=2), _operations)] if part["operations"].notna().any() else []),
        (TableColumn("labels s", rank=2), _spent("teacher_s", "tune_s")),
        (TableColumn("seeds", rank=3), _least("n_seeds")),
    ]
    notes = [ACCURACY, MARKED, SIZES, *several_devices(part["device"])]
    return table_by_ipc(f"Sets: {title}", columns, sorted(lines.values(), key=order), notes)
