"""From the flat frame, a row per record, to a row per cell: means over distillation seeds with intervals.

A cell is a method, data set, ipc, distillation and evaluation architecture and protocol. Students of one
artifact are averaged first; standard deviation and interval are over distillation seeds. Accuracy is a
fraction throughout. No torch, no drawing.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.analysis.best import rank_cells
from bench.analysis.devices import device_shares, joined_devices, of_one_device
from bench.analysis.intervals import mean_interval
from bench.records.columns import MEASURED_COLUMNS, SECONDS, Floats
from bench.records.naming import CELL

SORT: Final = ["dataset", "protocol", "distill_arch", "eval_arch", "ipc"]
STORED: Final = [
    *("stored_floats", "stored_bytes", "stored_bytes_uint8", "label_floats", "teacher_bytes"),
    "ipc_equivalent",
]
SPREAD: Final = ("mean", "std", "ci_low", "ci_high")
COLD_PHASES: Final = {name: name.removesuffix("_s") for name in SECONDS} | {"bookkeeping_s": "distill"}


# --- groups of rows -----------------------------------------------------------------------------------------


def deduplicate(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep one row per cell and seed: the evaluation with the most students.

    Rows are sorted, so that sums of floats do not depend on the order of the records.
    """
    ordered = frame.sort_values(["seed", "students", "key"])
    return ordered.drop_duplicates([*CELL, "seed"], keep="last")


def grouped(frame: pd.DataFrame, names: Sequence[str]) -> Any:
    """The rows that agree in these columns (missing values agree), groups in the order of their values."""
    return frame.groupby(list(names), dropna=False, sort=True)


def whole_means(groups: Any, names: Sequence[str]) -> pd.DataFrame:
    """The mean of columns in each group, NaN where a row lacks the value."""
    return groups[list(names)].mean().where(groups[list(names)].count().eq(groups.size(), axis=0))


def spreads(groups: Any, name: str, least: float = 0.0) -> pd.DataFrame:
    """Mean, standard deviation and 95 % interval of a column over the seeds of each group.

    Args:
        groups: A grouped frame; NaNs are left out.
        name: The column, of fractions; the result has NAME_mean, NAME_std, NAME_ci_low and NAME_ci_high.
        least: The least possible value; intervals are cut there, and at 1.

    Returns:
        A row per group. NaN: the deviation of fewer than two values, the interval of fewer than three.
    """
    column = groups[name]
    mean, deviation = column.mean(), column.std(ddof=1)
    low, high = (end.clip(least, 1) for end in mean_interval(mean, deviation, column.count()))
    return pd.DataFrame(
        {f"{name}_{part}": values for part, values in zip(SPREAD, (mean, deviation, low, high), strict=True)}
    )


# --- the accuracy -------------------------------------------------------------------------------------------


def summary_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Summarise records: accuracy, rank, storage and costs of each cell over its distillation seeds.

    Args:
        frame: A row per record, as `records.reader.load_frame` reads them.

    Returns:
        A row per cell, the best of each data set, protocol, architectures and ipc first. `accuracy_mean`,
        `accuracy_std`, `accuracy_ci_low`, `accuracy_ci_high`: fractions. `n_seeds`, and `n_students` of each.
        `competes`, `rank`, `rank_to`, `best` and `least_difference`: see `best.rank_cells`. Storage in
        floats, those of labels among them, bytes and the equivalent in ipc; bytes of the teacher; bytes of
        peak memory. `diverged`: students of all seeds with predictions that are not finite. Seconds: means
        over seeds, as `warm_seconds` gives them, NaN where the seeds are of several devices. `device`: their
        name, as `devices.device_shares` gives it. `cold`: the phases of which no seed was warm, as text.
        `exclusive`: every job had its device to itself; only then are its seconds comparable.
    """
    rows = warm_seconds(deduplicate(frame))
    rows = rows.assign(device=device_shares(rows))
    cells = grouped(rows, CELL)
    table = spreads(cells, "accuracy").assign(
        n_seeds=cells.size(),
        n_students=cells["students"].min(),
        # the same for every seed; should it differ, the largest
        **{name: cells[name].max() for name in STORED},
        within_budget=cells["within_budget"].all(),
        exempt=cells["exempt"].all(),
        **{name: cells[name].mean() for name in SECONDS},
        peak_memory_bytes=cells["peak_memory_bytes"].max(),
        device=cells["device"].agg(joined_devices),
        exclusive=cells["exclusive"].all(),
        cold=cells["cold"].agg(_in_all),
        diverged=cells["diverged"].sum(),
    )
    return _best_first(rank_cells(table.reset_index()))


def warm_seconds(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without seconds that no mean may have.

    Those of cold jobs, the first of their process, where the cell has warm ones; those of several devices.

    Args:
        rows: A row per cell and seed.

    Returns:
        The rows, with NaN in these seconds. Where all jobs of a cell's phase were cold, theirs stay. NaN in
        all seconds of a cell whose seeds are of several devices: their mean would be of none.
    """
    found = {}
    for name, phase in COLD_PHASES.items():
        cold = pd.Series([phase in phases for phases in rows["cold"]], rows.index, dtype=bool)
        if cold.any():
            warm = rows[name].where(~cold)
            known = warm.notna().groupby([rows[key] for key in CELL], dropna=False).transform("any")
            found[name] = warm.where(known, rows[name])
    rows = rows.assign(**found)
    one = of_one_device(rows)
    return rows if one.all() else rows.assign(**{name: rows[name].where(one) for name in COLD_PHASES})


def _in_all(phases: pd.Series) -> str:
    """The phases that every row names, as text."""
    common = set.intersection(*map(set, phases))
    return ", ".join(phase for phase in dict.fromkeys(COLD_PHASES.values()) if phase in common)


def _best_first(table: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by `SORT`, then the best accuracy first."""
    order = table.assign(_negated=-table["accuracy_mean"])
    order = order.sort_values([*SORT, "_negated", "method"], na_position="last")
    return order.drop(columns="_negated").reset_index(drop=True)


# --- more than the accuracy ---------------------------------------------------------------------------------


def metrics_summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Summarise calibration error, agreement and the accuracy of the worst class.

    Args:
        frame: A row per record.

    Returns:
        A row per cell, as in `summary_frame`: the accuracy, and the means of `MEASURED_COLUMNS` over seeds;
        NaN where a seed lacks one. `diverged`: students of all seeds.
    """
    cells = grouped(deduplicate(frame), CELL)
    table = spreads(cells, "accuracy").join(whole_means(cells, MEASURED_COLUMNS))
    table = table.assign(
        diverged=cells["diverged"].sum(),
        n_seeds=cells.size(),
        within_budget=cells["within_budget"].all(),
        exempt=cells["exempt"].all(),
    )
    return _best_first(table.reset_index())


def training_course(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in the course of the students' training.

    Args:
        frame: A row per record.

    Returns:
        A row per cell and `fraction` of the training: the accuracy after `step` steps of the optimiser, over
        seeds. At fraction 1 it is that of the records. Empty where the records hold no curve.
    """
    return _course(deduplicate(frame), "curve", ["fraction", "step", "accuracy"], [])


def distillation_course(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in the course of the distillation, from its snapshots.

    Args:
        frame: A row per record.

    Returns:
        A row per cell and `fraction` of the distillation: the accuracy of the snapshot over seeds; `step`, of
        the distillation; `prepare_s` and `distill_s`, the seconds up to it, means over seeds. At fraction 1
        it is the set itself. Empty where the records hold no snapshots.
    """
    # records without snapshots are left out first: `deduplicate` might prefer them to those with
    taken = warm_seconds(deduplicate(frame[frame["snapshots"].map(len) > 0]))
    of = ["fraction", "step", "distill_s", "accuracy"]
    left_out = taken["distill_s"].isna()  # of cold jobs
    points = [
        [(*place, np.nan if without else seconds, accuracy) for *place, seconds, accuracy in row]
        for row, without in zip(taken["snapshots"], left_out, strict=True)
    ]
    taken = taken.assign(snapshots=pd.Series(points, taken.index, dtype=object))
    return _course(taken, "snapshots", of, ["prepare_s", "distill_s"])


def snapshot_course(rows: pd.DataFrame, spent: str) -> pd.DataFrame:
    """The course of a distillation over what it had spent.

    Args:
        rows: A row per cell and seed; `snapshots` holds (fraction, step, what was spent, accuracy).
        spent: A name for that.

    Returns:
        A row per cell and `fraction`, with accuracy, `step` and the mean of `spent`.
    """
    return _course(rows, "snapshots", ["fraction", "step", spent, "accuracy"], [spent])


def _course(rows: pd.DataFrame, name: str, of: list[str], averaged: list[str]) -> pd.DataFrame:
    """Summarise a column that holds a list of points per record.

    Args:
        rows: A row per cell and seed.
        name: The column.
        of: The names of the numbers that a point holds.
        averaged: The columns, of the points or of the rows, of which means over seeds are kept.

    Returns:
        A row per cell and `fraction`; empty without any point.
    """
    around = [*CELL, "exempt", "within_budget", *(column for column in averaged if column not in of)]
    lists = rows[name]
    points = rows[around].iloc[np.repeat(np.arange(len(rows)), lists.map(len))]
    if points.empty:
        return pd.DataFrame()
    points = points.assign(**dict(zip(of, np.array([*chain(*lists)]).T, strict=True)))
    found = grouped(points, [*CELL, "exempt", "within_budget", "fraction"])
    table = pd.DataFrame({"step": found["step"].max().astype(int)})
    table = table.assign(**{column: found[column].mean() for column in averaged})
    return table.join(spreads(found, "accuracy")).assign(n_seeds=found.size()).reset_index()


def transfer(frame: pd.DataFrame) -> pd.DataFrame:
    """Summarise how sets do on architectures other than the one that they were distilled on.

    Args:
        frame: A row per record.

    Returns:
        A row per method, data set, ipc, distillation architecture and protocol. `own_arch`: the distillation
        architecture; of a method that needs no network, the one of all other methods, if it is a single one.
        `transfer`: the mean accuracy over all evaluation architectures of the data set and protocol except
        `own_arch`, for each seed first; a seed that lacks one of them is left out. `gap`: the accuracy on
        `own_arch` minus that. Both with standard deviation and interval over seeds, NaN without `own_arch`.
        `n_archs`: the other architectures. `accuracy_ARCH`: the mean on each.
    """
    found = [
        _transfer(compared.assign(dataset=dataset, protocol=protocol))
        for (dataset, protocol), compared in grouped(deduplicate(frame), ["dataset", "protocol"])
    ]
    return pd.concat(found, ignore_index=True)


def _transfer(compared: pd.DataFrame) -> pd.DataFrame:
    """The rows of `transfer` of one data set and protocol."""
    archs = sorted(compared["eval_arch"].unique())
    sources = set(compared["distill_arch"]) - {"any"}
    common = sources.pop() if len(sources) == 1 else None
    row = ["dataset", "protocol", "ipc", "method", "distill_arch"]
    by_arch = [compared["accuracy"].where(compared["eval_arch"] == arch).rename(arch) for arch in archs]
    seeds = grouped(pd.concat([compared[[*row, "seed"]], *by_arch], axis=1), [*row, "seed"])[archs].mean()
    seeds = seeds.reset_index()

    accuracy = seeds[archs].to_numpy(float)
    own_arch = np.array([common if arch == "any" else arch for arch in seeds["distill_arch"]], dtype=object)
    is_own = own_arch[:, None] == np.array(archs, dtype=object)
    others = ~is_own & pd.notna(own_arch)[:, None]
    own, elsewhere = (_mean_where(mask, accuracy) for mask in (is_own, others))
    seeds = seeds.assign(
        own_arch=own_arch, n_archs=others.sum(axis=1), transfer=elsewhere, gap=own - elsewhere
    )
    found, marks = grouped(seeds, row), grouped(compared, row)
    table = (
        found[["own_arch", "n_archs"]]
        .first()
        .join(spreads(found, "transfer"))
        .join(spreads(found, "gap", least=-1))
    )
    table = table.assign(
        n_seeds=found["transfer"].count(),
        within_budget=marks["within_budget"].all(),
        exempt=marks["exempt"].all(),
    )
    return table.join(found[archs].mean().add_prefix("accuracy_")).reset_index()


def _mean_where(mask: NDArray[np.bool_], values: Floats) -> Floats:
    """The mean [N] over the unmasked values [N,M]; NaN where one of them is NaN, or none is unmasked."""
    count = mask.sum(axis=1)
    return np.where(count, np.where(mask, values, 0).sum(axis=1) / np.maximum(count, 1), np.nan)
