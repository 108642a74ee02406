"""What moved between two result sets, beyond the noise of their seeds. No torch, no drawing."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import stats

from bench.analysis.aggregate import deduplicate, interval
from bench.analysis.comparison import SIGNIFICANCE, holm
from bench.analysis.intervals import LEAST_SEEDS
from bench.core.errors import UserError
from bench.records.columns import record_frame
from bench.records.groups import Floats
from bench.records.naming import CELL
from bench.records.schema import Record

LABEL_NAMES: Final = {"method": "method_name", "dataset": "dataset_name", "protocol": "protocol_name"}
REGRESSED, IMPROVED, TOO_FEW_SEEDS = "regressed", "improved", "too few seeds"
STORES_MORE, STORES_LESS = "stores more", "stores less"
MOST_NAMES_IN_NOTE = 3  # names in a note


def label_alike(a: Sequence[Record], b: Sequence[Record]) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """The flat frames of A and B under the same labels, and a note on each name that is not the same in both.

    Where both sides have the same labels of a name, each by itself, they are matched by these: a new version
    of a method, or one with another setting, is what is to be compared. Otherwise the labels of both sets
    together keep apart what differs.
    """
    alone = record_frame(a), record_frame(b)
    together = record_frame([*a, *b])
    both = together.iloc[: len(a)].reset_index(drop=True), together.iloc[len(a) :].reset_index(drop=True)
    notes = []
    for label, name in LABEL_NAMES.items():
        for which in sorted(together[name].unique()):
            rows = [side[name] == which for side in alone]
            own = [set(side.loc[mask, label]) for side, mask in zip(alone, rows, strict=True)]
            found = [set(side.loc[mask, label]) for side, mask in zip(both, rows, strict=True)]
            if own[0] != own[1] and all(own):
                for side, other, mask in zip(alone, both, rows, strict=True):
                    side.loc[mask, label] = other.loc[mask, label]
            elif found[0] != found[1] and all(own):
                texts = [_some(found[i] - found[1 - i]) for i in (0, 1)]
                notes.append(f"Matched by name: {texts[0]} in A, {texts[1]} in B.")
    return *alone, notes


def _some(names: set[str]) -> str:
    shown = sorted(names)[:MOST_NAMES_IN_NOTE]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def moved_cells(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """A row per cell of either frame: means, B - A with its interval, p, costs and a verdict.

    The interval is a bootstrap over seeds, those of A and B drawn independently: two runs of one seed do not
    share their noise. `p_holm`: Welch's t-test, with Holm's correction over cells. `verdict`: regressed or
    improved where the interval leaves 0 out and `p_holm` is under 0.05. `storage`: more or fewer bytes.
    """
    table = _cells(a).merge(_cells(b), on=CELL, how="outer", suffixes=("_a", "_b"))
    tested = [_test(x, y) for x, y in zip(table["seeds_a"], table["seeds_b"], strict=True)]
    columns = ["mean_a", "mean_b", "difference", "ci_low", "ci_high", "p"]
    table[columns] = np.array(tested, float).reshape(-1, len(columns))
    table["p_holm"] = holm(table["p"].to_numpy(float))
    table["verdict"] = [_verdict(row) for row in table.to_dict("records")]
    before, after = table["stored_bytes_a"], table["stored_bytes_b"]
    table["storage"] = np.select([after > before, after < before], [STORES_MORE, STORES_LESS], "")
    for name in ("exempt", "within_budget"):
        table[name] = table.pop(f"{name}_b").combine_first(table.pop(f"{name}_a")).astype(bool)
    return table.drop(columns=["seeds_a", "seeds_b"]).sort_values([*CELL[1:], "method"], ignore_index=True)


def _cells(side: pd.DataFrame) -> pd.DataFrame:
    """A row per cell: its seeds' accuracies, seconds to prepare and distil, stored bytes."""
    rows = deduplicate(side)
    found = rows.assign(seconds=rows["prepare_s"] + rows["distill_s"]).groupby(CELL, dropna=False)
    return found.agg(
        seeds=("accuracy", lambda values: tuple(sorted(values))),
        n_seeds=("accuracy", "size"),
        seconds=("seconds", "mean"),
        stored_bytes=("stored_bytes", "max"),
        exempt=("exempt", "all"),
        within_budget=("within_budget", "all"),
    ).reset_index()


def _difference(a: Any, b: Any, axis: int = -1) -> Any:
    return b.mean(axis) - a.mean(axis)


def _test(a: Any, b: Any) -> tuple[float, ...]:
    """Means, difference, interval and p of the seeds of a cell; NaN where one side lacks it."""
    x, y = (np.array(side if isinstance(side, tuple) else [np.nan], float) for side in (a, b))
    low, high = interval(x, y, statistic=_difference)
    return x.mean(), y.mean(), y.mean() - x.mean(), low, high, _welch(x, y)


def _welch(x: Floats, y: Floats) -> float:
    """Two-sided p of Welch's t-test; NaN where no interval is claimed either."""
    if min(len(x), len(y)) < LEAST_SEEDS:
        return float("nan")
    if np.ptp(x) == np.ptp(y) == 0:
        return float(x[0] == y[0])
    return float(stats.ttest_ind(x, y, equal_var=False).pvalue)


def _verdict(row: dict[Any, Any]) -> str:
    if np.isnan(row["difference"]):
        return "only in B" if np.isnan(row["mean_a"]) else "only in A"
    if np.isnan(row["p"]):
        return TOO_FEW_SEEDS
    certain = row["p_holm"] < SIGNIFICANCE
    return REGRESSED if certain and row["ci_high"] < 0 else IMPROVED if certain and row["ci_low"] > 0 else ""


def compare_records(a: Sequence[Record], b: Sequence[Record]) -> tuple[pd.DataFrame, list[str]]:
    """`moved` and the notes of `sides`. Raises UserError where the two have no cell in common."""
    *flat, notes = label_alike(a, b)
    table = moved_cells(*flat)
    if table["difference"].isna().all():
        examples = [", ".join(map(str, side[CELL].iloc[0])) for side in flat]
        raise UserError(
            f"no cell in common: A has {examples[0]}, B has {examples[1]}; compare two runs of one sweep"
        )
    return table, notes


def any_regressed(table: pd.DataFrame) -> bool:
    """Some cell lost accuracy beyond noise, or stores more than it did."""
    return bool((table["verdict"] == REGRESSED).any() or (table["storage"] == STORES_MORE).any())
