"""Tunings as frames: what trials found for what they cost, tuned against untuned methods on fresh seeds."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

import numpy as np
import pandas as pd

from bench.analysis.aggregate import summary_frame
from bench.analysis.intervals import LEAST_SEEDS, sum_of_variances, t_interval
from bench.records.naming import CELL
from bench.records.schema import ANY_ARCHITECTURE
from bench.records.trial import TrialRecord, best_trial, by_cell

PLACE: Final = ["dataset", "ipc", "method"]


def cell_names(trials: Sequence[TrialRecord]) -> dict[str, str]:
    """{key of a cell: its method, with what the sweep fixes where it has the method several times}."""
    cells = {key: found[0] for key, found in by_cell(trials).items()}
    several = Counter((one.method, one.dataset, one.ipc) for one in cells.values())
    names = {}
    for key, one in cells.items():
        fixed = ", ".join(f"{name}={value}" for name, value in sorted(one.fixed.items()))
        marked = several[one.method, one.dataset, one.ipc] > 1 and fixed
        names[key] = f"{one.method}[{fixed}]" if marked else one.method
    return names


def tuning_course(trials: Sequence[TrialRecord]) -> pd.DataFrame:
    """The best accuracy on the hold-out so far, after each trial.

    Args:
        trials: of one result folder.

    Returns:
        A row per trial: `dataset`, `ipc`, `method`; `trials`, `operations` and `seconds` spent so far, with
        the prerequisites once and without the students; `accuracy` of the trial at its last rung, its
        `percent`, and `best`: NaN until some trial came to its end.
    """
    names, rows = cell_names(trials), []
    for key, found in by_cell(trials).items():
        prepare = next((t for t in found if t.prepare_operations is not None), found[0])
        spent = accumulate((_operations(t) for t in found), initial=prepare.prepare_operations or 0.0)
        seconds = accumulate((_seconds(t) for t in found), initial=prepare.prepare_s)
        next(spent), next(seconds)  # before the first one
        best = np.nan
        for n, (trial, operations, taken) in enumerate(zip(found, spent, seconds, strict=True), start=1):
            best = np.fmax(best, np.nan if trial.final is None else trial.final)
            rows.append(
                {
                    **{"dataset": trial.dataset, "ipc": trial.ipc, "method": names[key], "trials": n},
                    **{"operations": operations, "seconds": taken, "state": trial.state},
                    "percent": trial.rungs[-1].percent if trial.rungs else 0,
                    "accuracy": trial.rungs[-1].accuracy if trial.rungs else np.nan,
                    "best": best,
                }
            )
    return pd.DataFrame(rows)


def _operations(trial: TrialRecord) -> float:
    return (trial.rungs[-1].operations or 0.0) if trial.rungs else 0.0


def _seconds(trial: TrialRecord) -> float:
    return trial.rungs[-1].distill_s if trial.rungs else 0.0


def tuning_summary(trials: Sequence[TrialRecord]) -> pd.DataFrame:
    """A row per tuned method, data set and ipc, the best first: `default` and `best` on the hold-out, costs.

    `trials`, and how many were `stopped` early or `failed`; `operations` and `seconds` of all of them;
    `values`: the best ones, as JSON.
    """
    course, names, rows = tuning_course(trials), cell_names(trials), []
    for key, found in by_cell(trials).items():
        place = {"dataset": found[0].dataset, "ipc": found[0].ipc, "method": names[key]}
        last = course[(course[PLACE] == pd.Series(place)).all(axis=1)].iloc[-1]
        states, best = Counter(trial.state for trial in found), best_trial(found)
        default = next((trial.final for trial in found if trial.number == 0), None)
        rows.append(
            {
                **place,
                "holdout": found[0].holdout,
                "default": np.nan if default is None else default,
                "best": last["best"],
                "best_trial": -1 if best is None else best.number,
                **{"trials": len(found), "stopped": states["stopped"], "failed": states["failed"]},
                **{"operations": last["operations"], "seconds": last["seconds"]},
                "values": "" if best is None else json.dumps(best.values),
            }
        )
    table = pd.DataFrame(rows)
    return table.sort_values(["dataset", "ipc", "best", "method"], ascending=[True, True, False, True])


def tuned_against_default(flat: pd.DataFrame, trials: Sequence[TrialRecord]) -> pd.DataFrame:
    """Methods with default and with tuned values on the seeds of a sweep, which no trial has used.

    Args:
        flat: A row per record.
        trials: of the tuning.

    Returns:
        A row per cell in which a method was scored with both: `default_` and `tuned_` `mean`, `std`,
        `ci_low`, `ci_high`, `rank` and `rank_to`, each among all methods with such values; `difference`,
        `difference_ci_low` and `difference_ci_high` of the means, NaN where no other values than the default
        ones were better (`same_values`). Methods that were not tuned stand in both rankings, without a
        difference. Empty where no method was scored with both.
    """
    names, values = cell_names(trials), flat["hyperparameters"].map(json.loads)
    default, tuned = (pd.Series("", flat.index, dtype=object) for _ in range(2))
    kept = []  # what is best with its default values
    for key, found in by_cell(trials).items():
        if (best := best_trial(found)) is None or found[0].number:
            continue
        place = (flat["method_name"] == best.method) & (flat["dataset"] == best.dataset)
        place &= (flat["ipc"] == best.ipc) & flat["distill_arch"].isin([best.architecture, ANY_ARCHITECTURE])
        for marks, trial in ((default, found[0]), (tuned, best)):
            asked = {**trial.fixed, **trial.values}
            marks[place & values.map(lambda own, asked=asked: _holds(own, asked))] = names[key]
        kept += [] if best.number else [(best.dataset, best.ipc, names[key])]
    plain = ~flat["method_name"].isin({trial.method for trial in trials}) & ~flat["exempt"]
    both = _side(flat, default, plain).merge(
        _side(flat, tuned, plain), on=CELL, suffixes=("_default", "_tuned")
    )
    compared = both["method"].isin(set(names.values()))
    if not compared.any():
        return pd.DataFrame()
    same = pd.Series(
        [place in kept for place in zip(both["dataset"], both["ipc"], both["method"], strict=True)]
    )
    return _with_difference(both.assign(same_values=same), compared & ~same)


def _holds(own: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    own = {"preprocess": "normalise", **own}  # which is recorded where it is another
    return all(name in own and own[name] == value for name, value in asked.items())


def _side(flat: pd.DataFrame, marks: pd.Series, plain: pd.Series) -> pd.DataFrame:
    """The summary of the marked rows, under these names, and of the plain ones."""
    rows = flat[plain | (marks != "")]
    kept = [
        "accuracy_mean",
        "accuracy_std",
        "accuracy_ci_low",
        "accuracy_ci_high",
        "rank",
        "rank_to",
        "n_seeds",
    ]
    if not len(rows):
        return pd.DataFrame(columns=[*CELL, *kept])
    labels = rows["method"].where(plain[rows.index], marks[rows.index])
    return summary_frame(rows.assign(method=labels))[[*CELL, *kept]]


def _with_difference(both: pd.DataFrame, compared: pd.Series) -> pd.DataFrame:
    """Welch's interval of the difference of two means; none below three seeds, and where nothing moved."""
    n = both[["n_seeds_default", "n_seeds_tuned"]].to_numpy(float)
    variance = np.square(both[["accuracy_std_default", "accuracy_std_tuned"]].to_numpy(float)) / n
    total, freedom = sum_of_variances(variance, n - 1)
    difference = (both["accuracy_mean_tuned"] - both["accuracy_mean_default"]).where(compared)
    low, high = t_interval(difference, total, np.where((n >= LEAST_SEEDS).all(axis=1), freedom, np.nan))
    table = both.assign(difference=difference, difference_ci_low=low, difference_ci_high=high)
    order = ["dataset", "protocol", "eval_arch", "ipc", "accuracy_mean_tuned"]
    return table.sort_values([*order, "method"], ascending=[True, True, True, True, False, True])
