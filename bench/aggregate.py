"""From the flat frame to tables: what is compared with what, and how sure the means are. No torch, no drawing.

Students of one artifact are averaged first; spread and interval are over distillation seeds. Accuracy is
a fraction throughout.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy import stats

from bench.bootstrap import CONFIDENCE, LEAST_SEEDS, RESAMPLES, Floats, Ints, Ragged, blocks, intervals
from bench.frames import load_records as load_records
from bench.labels import CELL as CELL
from bench.rows import BLOCKS as BLOCKS
from bench.rows import MEASURED as MEASURED
from bench.rows import RATE as RATE
from bench.rows import TRAINING as TRAINING
from bench.rows import frame as frame

SORT = ["dataset", "protocol", "distill_arch", "eval_arch", "ipc"]
SECONDS = ["prepare_s", "distill_s", "evaluate_s"]


# --- statistics over seeds ----------------------------------------------------------------------------------


# samples and the axis of their seeds -> a number for each; a function of a module, so that it can be a key
Statistic = Callable[..., Any]
Groups = tuple[tuple[float, ...], ...]


def interval(*groups: Iterable[float], statistic: Statistic = np.mean) -> tuple[float, float]:
    """95 % bootstrap interval of a statistic of groups of seeds that are drawn independently.

    By default the mean of one group. NaN where a group has fewer than three values, the point where all
    groups are constant.
    """
    # sorted: the draws must not depend on the order of the seeds
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
    with warnings.catch_warnings():  # BCa warns where it is undefined; the caller looks at the numbers
        warnings.simplefilter("ignore")
        result = stats.bootstrap(
            tuple(map(np.array, groups)),
            statistic,
            method=method,
            confidence_level=CONFIDENCE,
            n_resamples=RESAMPLES,
            rng=np.random.default_rng(0),
        )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def spread(by_seed: pd.Series, name: str) -> dict[str, float]:
    """Mean, deviation and interval over distillation seeds, under names that begin with `name`."""
    low, high = interval(by_seed)
    values = (by_seed.mean(), by_seed.std(ddof=1), low, high)
    return dict(zip((f"{name}_{part}" for part in ("mean", "std", "ci_low", "ci_high")), values, strict=True))


def once(frame: pd.DataFrame) -> pd.DataFrame:
    """Students that were scored again with more beside them count once; sorted, as sums of floats must be."""
    ordered = frame.sort_values(["seed", "students", "key"])
    return ordered.drop_duplicates([*CELL, "seed"], keep="last")


def parts(frame: pd.DataFrame, names: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """The rows that agree in these columns, with the values in which they do."""
    for key, part in frame.groupby(list(names), dropna=False):
        yield dict(zip(names, cast(tuple[Any, ...], key), strict=True)), part


def _one_cell(cell: pd.DataFrame) -> dict[str, Any]:
    """The statistics of one method in one cell of the comparison."""
    by_seed = cell.groupby("seed")["accuracy"].mean()
    return {
        **spread(by_seed, "accuracy"),
        "n_seeds": len(by_seed),
        "n_students": cell["students"].min(),
        # Storage is the same for every seed; if it ever is not, the largest is what has to be stored.
        **cell[["stored_floats", "stored_bytes", "stored_bytes_uint8", "ipc_equivalent"]].max(),
        "within_budget": bool(cell["within_budget"].all()),
        "exempt": bool(cell["exempt"].all()),
        **cell[SECONDS].mean(),
        "peak_memory_bytes": cell["peak_memory_bytes"].max(),
        "device": "; ".join(sorted(cell["device"].unique())),
        "exclusive": bool(cell["exclusive"].all()),
    }


WHOLE = ["n_seeds", "n_students", "stored_floats", "stored_bytes", "stored_bytes_uint8", "peak_memory_bytes"]


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per method, dataset, ipc, architectures and protocol, over its distillation seeds.

    `exclusive` is true where every job had its device to itself: only then are its seconds comparable.
    """
    rows = [{**where, **_one_cell(cell)} for where, cell in parts(once(frame), CELL)]
    return _ranked(pd.DataFrame(rows).astype({"ipc": "Int64", **dict.fromkeys(WHOLE, "int64")}))


def _ranked(table: pd.DataFrame) -> pd.DataFrame:
    """The best of each cell of the comparison first."""
    order = table.assign(_negated=-table["accuracy_mean"])
    order = order.sort_values([*SORT, "_negated", "method"], na_position="last")
    return order.drop(columns="_negated").reset_index(drop=True)


# --- more than the accuracy ---------------------------------------------------------------------------------


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per cell as in `summary`: accuracy, and means of calibration error, agreement and worst class.

    NaN where a seed lacks it: nothing is filled in.
    """
    rows = [
        {
            **where,
            **spread(cell["accuracy"], "accuracy"),
            **{name: cell[name].mean(skipna=False) for name in MEASURED},
            "n_seeds": len(cell),
            "within_budget": bool(cell["within_budget"].all()),
            "exempt": bool(cell["exempt"].all()),
        }
        for where, cell in parts(once(frame), CELL)
    ]
    return _ranked(pd.DataFrame(rows).astype({"ipc": "Int64"}))


def curve(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per cell and part of the students' training: accuracy after `step` optimiser steps, over seeds.

    The last of a cell is the accuracy that its records hold, at `fraction` 1. Empty where they hold no curve.
    """
    alike = [*CELL, "exempt", "within_budget"]
    ends = once(frame)[[*alike, "curve"]].explode("curve").dropna(subset="curve")
    ends[["fraction", "step", "accuracy"]] = ends["curve"].tolist() or np.empty((0, 3))
    rows = [
        {
            **where,
            "step": int(part["step"].max()),
            **spread(part["accuracy"], "accuracy"),
            "n_seeds": len(part),
        }
        for where, part in parts(ends, [*alike, "fraction"])
    ]
    return pd.DataFrame(rows).astype({"ipc": "Int64"} if rows else {})


def transfer(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per method, ipc, distillation architecture and protocol: how its sets do on other networks.

    `transfer`: the mean accuracy over all evaluation architectures of the data set and protocol other than
    `own_arch`, for each seed first; a seed that lacks one has none. `gap`: the accuracy on `own_arch` less
    that. `own_arch` is the distillation architecture. What needs no network is taken with the one on which
    the others were distilled, so that it stands beside them over the same networks; if there are several,
    or none, it has no transfer.
    """
    rows = []
    for where, compared in parts(once(frame), ["dataset", "protocol"]):
        archs = sorted(compared["eval_arch"].unique())
        sources = set(compared["distill_arch"]) - {"any"}
        common = sources.pop() if len(sources) == 1 else None
        for which, row in parts(compared, ["ipc", "method", "distill_arch"]):
            own = common if which["distill_arch"] == "any" else which["distill_arch"]
            rows.append({**where, **which, "own_arch": own, **_transfer(row, own, archs)})
    return pd.DataFrame(rows).astype({"ipc": "Int64"})


def _transfer(rows: pd.DataFrame, own: str | None, archs: list[str]) -> dict[str, Any]:
    """The statistics of one method's transfer from its own architecture."""
    accuracy = rows.pivot(index="seed", columns="eval_arch", values="accuracy").reindex(columns=archs)
    others = accuracy.drop(columns=own, errors="ignore") if own is not None else accuracy[[]]
    transferred = others.mean(axis=1, skipna=False)
    gap = accuracy.get(own, float("nan")) - transferred
    return {
        **spread(transferred.dropna(), "transfer"),
        **spread(gap.dropna(), "gap"),
        "n_archs": others.shape[1],
        "n_seeds": transferred.count(),
        "within_budget": bool(rows["within_budget"].all()),
        "exempt": bool(rows["exempt"].all()),
        **{f"accuracy_{arch}": accuracy[arch].mean() for arch in archs},
    }
