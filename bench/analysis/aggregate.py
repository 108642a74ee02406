"""From the flat frame, a row per record, to a row per cell: means over distillation seeds with intervals.

A cell is a method, data set, ipc, distillation and evaluation architecture and protocol. Students of one
artifact are averaged first; standard deviation and interval are over distillation seeds. Accuracy is a
fraction throughout. No torch, no drawing.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bench.analysis.intervals import CONFIDENCE, LEAST_SEEDS, MEAN_RESAMPLES, intervals
from bench.records.columns import MEASURED_COLUMNS, SECONDS
from bench.records.groups import Floats, Ragged, equal_groups, group_means, without_missing
from bench.records.naming import CELL

SORT = ["dataset", "protocol", "distill_arch", "eval_arch", "ipc"]
COLD_PHASES = {name: name.removesuffix("_s") for name in SECONDS} | {"bookkeeping_s": "distill"}


# --- statistics over seeds ----------------------------------------------------------------------------------


# statistic(*samples, axis) -> a number for each; hashable, as results are cached by it
Statistic = Callable[..., Any]
Groups = tuple[tuple[float, ...], ...]


def interval(*groups: Iterable[float], statistic: Statistic = np.mean) -> tuple[float, float]:
    """95 % bootstrap interval (BCa) of a statistic of groups of seeds that are drawn independently.

    Args:
        *groups: The values of each group.
        statistic: By default the mean of one group.

    Returns:
        The ends of the interval: NaN if a group has fewer than three values, the statistic itself if all
        groups are constant, those by percentiles where BCa is undefined.
    """
    # sorted, so that the draws do not depend on the order of the seeds
    return _interval(tuple(tuple(sorted(group)) for group in groups), statistic)


@cache
def _interval(groups: Groups, statistic: Statistic) -> tuple[float, float]:
    if min(map(len, groups)) < LEAST_SEEDS:
        return float("nan"), float("nan")
    if all(group[0] == group[-1] for group in groups):
        point = float(statistic(*(np.array(group[:1]) for group in groups), axis=-1))
        return point, point
    low, high = _bootstrap(groups, statistic, "BCa")
    return (low, high) if np.isfinite([low, high]).all() else _bootstrap(groups, statistic, "percentile")


def _bootstrap(groups: Groups, statistic: Statistic, method: str) -> tuple[float, float]:
    with warnings.catch_warnings():  # BCa warns where it is undefined; the caller checks the numbers
        warnings.simplefilter("ignore")
        result = stats.bootstrap(
            tuple(map(np.array, groups)),
            statistic,
            method=method,
            confidence_level=CONFIDENCE,
            n_resamples=MEAN_RESAMPLES,
            rng=np.random.default_rng(0),
        )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


SPREAD = ("mean", "std", "ci_low", "ci_high")


def deduplicate(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep one row per cell and seed: the evaluation with the most students.

    Rows are sorted, so that sums of floats do not depend on the order of the records.
    """
    ordered = frame.sort_values(["seed", "students", "key"])
    return ordered.drop_duplicates([*CELL, "seed"], keep="last")


def parts(frame: pd.DataFrame, names: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield the rows that agree in these columns, with their values there by name."""
    for key, part in frame.groupby(list(names), dropna=False):
        yield dict(zip(names, cast(tuple[Any, ...], key), strict=True)), part


class Parts:
    """The parts of a frame that agree in some columns, for computations on all parts at once.

    Attributes:
        code: [rows], the part of each row.
        sizes: [parts], the rows of each part.
        where: A row per part with the columns in which its rows agree.
    """

    def __init__(self, frame: pd.DataFrame, names: Sequence[str]) -> None:
        self.code = frame.groupby(list(names), dropna=False).ngroup().to_numpy()
        self.sizes = np.bincount(self.code)
        self._frame = frame
        self._order = np.argsort(self.code, kind="stable")
        self._first = np.cumsum(self.sizes) - self.sizes
        self.where = frame[list(names)].iloc[self._order[self._first]].reset_index(drop=True)

    def column(self, name: str) -> Ragged:
        """The values of a column in each part."""
        return Ragged(self._frame[name].to_numpy()[self._order], self.sizes)

    def least(self, name: str) -> NDArray[Any]:
        """The minimum of a column in each part."""
        return np.minimum.reduceat(self.column(name).values, self._first)

    def most(self, name: str) -> NDArray[Any]:
        """The maximum of a column in each part."""
        return np.maximum.reduceat(self.column(name).values, self._first)

    def total(self, name: str) -> Floats:
        """The sum of a column over each part, without what is missing; NaN where all of it is."""
        found = without_missing(Ragged(self.column(name).values.astype(float), self.sizes))
        return group_means(found) * found.sizes

    def all(self, name: str) -> NDArray[np.bool_]:
        """Whether a column is true in all rows of each part."""
        return np.logical_and.reduceat(self.column(name).values, self._first)

    def names(self, name: str) -> NDArray[Any]:
        """The different texts of a column in each part, joined by "; "."""
        texts, _ = self.column(name)
        code, known = pd.factorize(texts)
        low, high = (by.reduceat(code, self._first) for by in (np.minimum, np.maximum))
        found = np.asarray(known, dtype=object)[low]
        for i in np.flatnonzero(low != high):
            found[i] = "; ".join(sorted(set(texts[self._first[i] : self._first[i] + self.sizes[i]])))
        return found


def spreads(group: Ragged, name: str) -> dict[str, Floats]:
    """Mean, standard deviation and 95 % bootstrap interval of each group of seeds.

    Args:
        group: The values of each group.
        name: Columns are named NAME_mean, NAME_std, NAME_ci_low and NAME_ci_high.

    Returns:
        The columns, a number for each group. NaN: the deviation of fewer than two values, the interval of
        fewer than three.
    """
    mean, deviation = np.full((2, len(group.sizes)), np.nan)
    for which, (values,) in equal_groups(group):
        n = values.shape[1]
        mean[which] = values.mean(-1) if n else np.nan
        squares = np.square(mean[which, None] - values).sum(-1)
        deviation[which] = np.sqrt(squares / (n - 1)) if n > 1 else np.nan
    columns = (mean, deviation, *intervals(group).T)
    return {f"{name}_{part}": column for part, column in zip(SPREAD, columns, strict=True)}


# --- the accuracy -------------------------------------------------------------------------------------------


def summary_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Summarise records: accuracy, storage and costs of each cell over its distillation seeds.

    Args:
        frame: A row per record, as `records.reader.load_frame` reads them.

    Returns:
        A row per cell, the best of each data set, protocol, architectures and ipc first. `accuracy_mean`,
        `accuracy_std`, `accuracy_ci_low`, `accuracy_ci_high`: fractions. `n_seeds`, and `n_students` of each.
        Storage in floats, bytes and the equivalent in ipc; bytes of the teacher; bytes of peak memory.
        `diverged`: students of all seeds with predictions that are not finite. Seconds: means over seeds, as
        `warm_seconds` gives them. `cold`: the phases of which no seed was warm, as text. `exclusive`: every
        job had its device to itself; only then are its seconds comparable.
    """
    rows = warm_seconds(deduplicate(frame))
    cells = Parts(rows, CELL)
    # storage is the same for every seed; should it differ, the largest counts
    stored = ("stored_floats", "stored_bytes", "stored_bytes_uint8", "teacher_bytes", "ipc_equivalent")
    return _ranked(
        cells.where.assign(
            **spreads(cells.column("accuracy"), "accuracy"),
            n_seeds=cells.sizes,
            n_students=cells.least("students"),
            **{name: cells.most(name) for name in stored},
            within_budget=cells.all("within_budget"),
            exempt=cells.all("exempt"),
            **{name: group_means(without_missing(cells.column(name))) for name in SECONDS},
            peak_memory_bytes=cells.most("peak_memory_bytes"),
            device=cells.names("device"),
            exclusive=cells.all("exclusive"),
            cold=_cold_only(rows, cells),
            diverged=cells.total("diverged"),
        )
    )


def warm_seconds(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without the seconds of cold jobs, the first of their process, where the cell has warm ones.

    Args:
        rows: A row per cell and seed.

    Returns:
        The rows, with NaN in these seconds. Where all jobs of a cell's phase were cold, theirs stay.
    """
    found = {}
    for name, phase in COLD_PHASES.items():
        cold = _is_cold(rows, phase)
        if cold.any():
            warm = rows[name].where(~cold)
            known = warm.notna().groupby([rows[key] for key in CELL], dropna=False).transform("any")
            found[name] = warm.where(known, rows[name])
    return rows.assign(**found)


def _is_cold(rows: pd.DataFrame, phase: str) -> pd.Series:
    return pd.Series([phase in phases for phases in rows["cold"]], rows.index, dtype=bool)


def _cold_only(rows: pd.DataFrame, cells: Parts) -> list[str]:
    """The phases of which all seconds of a cell are of cold jobs, as text, for each cell."""
    found: list[list[str]] = [[] for _ in cells.sizes]
    for phase in dict.fromkeys(COLD_PHASES.values()):
        warm = ~_is_cold(rows, phase).to_numpy()
        for cell in np.flatnonzero(np.bincount(cells.code, warm, len(cells.sizes)) == 0):
            found[cell].append(phase)
    return [", ".join(phases) for phases in found]


def _ranked(table: pd.DataFrame) -> pd.DataFrame:
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
        A row per cell, as in `summary`: the accuracy, and the means of `MEASURED_COLUMNS` over seeds; NaN
        where a seed lacks one. `diverged`: students of all seeds.
    """
    cells = Parts(deduplicate(frame), CELL)
    return _ranked(
        cells.where.assign(
            **spreads(cells.column("accuracy"), "accuracy"),
            **{name: group_means(cells.column(name)) for name in MEASURED_COLUMNS},
            diverged=cells.total("diverged"),
            n_seeds=cells.sizes,
            within_budget=cells.all("within_budget"),
            exempt=cells.all("exempt"),
        )
    )


def training_course(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in the course of the students' training.

    Args:
        frame: A row per record.

    Returns:
        A row per cell and `fraction` of the training: the accuracy after `step` steps of the optimiser, over
        seeds. At fraction 1 it is that of the records. Empty where the records hold no curve.
    """
    return _course(deduplicate(frame), "curve", ["fraction", "step", "accuracy"], ())


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
    unknown = taken["distill_s"].isna()  # or of a cold job
    points = [
        [(*place, np.nan if without else seconds, accuracy) for *place, seconds, accuracy in row]
        for row, without in zip(taken["snapshots"], unknown, strict=True)
    ]
    taken = taken.assign(snapshots=pd.Series(points, taken.index, dtype=object))
    return _course(taken, "snapshots", of, ("prepare_s", "distill_s"))


def _course(rows: pd.DataFrame, name: str, of: list[str], averaged: Sequence[str]) -> pd.DataFrame:
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
    found = Parts(points, [*CELL, "exempt", "within_budget", "fraction"])
    return found.where.assign(
        step=found.most("step").astype(int),
        **{column: group_means(without_missing(found.column(column))) for column in averaged},
        **spreads(found.column("accuracy"), "accuracy"),
        n_seeds=found.sizes,
    )


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
        _transfer(where, compared) for where, compared in parts(deduplicate(frame), ["dataset", "protocol"])
    ]
    return pd.concat(found, ignore_index=True)


def _transfer(where: dict[str, Any], compared: pd.DataFrame) -> pd.DataFrame:
    """The rows of `transfer` of one data set and protocol."""
    archs = sorted(compared["eval_arch"].unique())
    sources = set(compared["distill_arch"]) - {"any"}
    common = sources.pop() if len(sources) == 1 else None
    row = ["ipc", "method", "distill_arch"]
    found, seeds = Parts(compared, row), Parts(compared, [*row, "seed"])
    accuracy = np.full((len(seeds.sizes), len(archs)), np.nan)
    accuracy[seeds.code, compared["eval_arch"].map(archs.index)] = compared["accuracy"]

    sizes = Parts(seeds.where, row).sizes  # [rows]: the seeds of each
    own_arch = [common if arch == "any" else arch for arch in found.where["distill_arch"]]
    is_own = np.repeat([[arch == own for arch in archs] for own in own_arch], sizes, axis=0)
    others = ~is_own & np.repeat([[own is not None] for own in own_arch], sizes, axis=0)
    own, elsewhere = (_mean_where(mask, accuracy) for mask in (is_own, others))
    transferred = without_missing(Ragged(elsewhere, sizes))
    return pd.DataFrame({**where, **found.where}).assign(
        own_arch=pd.Series(own_arch),
        **spreads(transferred, "transfer"),
        **spreads(without_missing(Ragged(own - elsewhere, sizes)), "gap"),
        n_archs=others[np.cumsum(sizes) - 1].sum(axis=1),
        n_seeds=transferred.sizes,
        within_budget=found.all("within_budget"),
        exempt=found.all("exempt"),
        **{
            f"accuracy_{arch}": group_means(without_missing(Ragged(accuracy[:, i], sizes)))
            for i, arch in enumerate(archs)
        },
    )


def _mean_where(mask: NDArray[np.bool_], values: Floats) -> Floats:
    """The mean [N] over the unmasked values [N,M]; NaN where one of them is NaN, or none is unmasked."""
    count = mask.sum(axis=1)
    return np.where(count, np.where(mask, values, 0).sum(axis=1) / np.maximum(count, 1), np.nan)
