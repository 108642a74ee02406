"""What changed between two result sets, A and B, beyond the noise of their seeds. No torch, no drawing."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import stats

from bench.analysis.aggregate import deduplicate, interval, warm_seconds
from bench.analysis.comparison import SIGNIFICANCE, holm
from bench.analysis.intervals import LEAST_SEEDS
from bench.core.errors import UserError
from bench.records.columns import record_rows, record_table
from bench.records.groups import Floats
from bench.records.naming import CELL, labelled
from bench.records.schema import Record

LABEL_NAMES: Final = {"method": "method_name", "dataset": "dataset_name", "protocol": "protocol_name"}
REGRESSED, IMPROVED, TOO_FEW_SEEDS = "regressed", "improved", "too few seeds"
STORES_MORE, STORES_LESS = "stores more", "stores less"
MOST_NAMES_IN_NOTE = 3


def label_alike(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Label the rows of A and B such that what is to be compared has one `method`, `dataset` and `protocol`.

    Where each side, labelled by itself, has the same labels for a name, these are kept: a new version of a
    method, or one with other hyper-parameters, is compared with the old. Otherwise the labels of both sides
    together keep apart what differs.

    Args:
        a: A flat frame, a row per record; labels that it has are replaced.
        b: Another.

    Returns:
        The two frames with their labels, and a note for each name that does not mean the same in both.
    """
    alone = labelled(a.reset_index(drop=True)), labelled(b.reset_index(drop=True))
    together = labelled(pd.concat([a, b], ignore_index=True))
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
    """The first of these names, and how many more there are."""
    shown = sorted(names)[:MOST_NAMES_IN_NOTE]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def moved_cells(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Test for every cell whether its accuracy changed from A to B.

    Seeds of A and B are drawn independently: two runs of one seed do not share their noise.

    Args:
        a: A flat frame labelled by `label_alike`.
        b: The other.

    Returns:
        A row per cell of either frame. `mean_a`, `mean_b`: fractions. `difference`: B - A, with `ci_low` and
        `ci_high`, its 95 % bootstrap interval over seeds. `p`: Welch's t-test; `p_holm`: with Holm's
        correction over cells. `verdict`: regressed or improved where the interval leaves 0 out and `p_holm`
        is under 0.05. `storage`: whether B stores more or fewer bytes. Seconds and bytes of both sides.
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
    """A row per cell: the accuracies of its seeds, seconds to prepare and distill, stored bytes."""
    cells = warm_seconds(deduplicate(side)).groupby(CELL, dropna=False)
    found = cells.agg(
        seeds=("accuracy", lambda values: tuple(sorted(values))),
        n_seeds=("accuracy", "size"),
        prepare_s=("prepare_s", "mean"),
        distill_s=("distill_s", "mean"),
        stored_bytes=("stored_bytes", "max"),
        exempt=("exempt", "all"),
        within_budget=("within_budget", "all"),
    ).reset_index()
    return found.assign(seconds=found.pop("prepare_s") + found.pop("distill_s"))


def _difference(a: Any, b: Any, axis: int = -1) -> Any:
    return b.mean(axis) - a.mean(axis)


def _test(a: Any, b: Any) -> tuple[float, ...]:
    """Means, difference, interval and p of the seeds of a cell; NaN where one side lacks it."""
    x, y = (np.array(side if isinstance(side, tuple) else [np.nan], float) for side in (a, b))
    low, high = interval(x, y, statistic=_difference)
    return x.mean(), y.mean(), y.mean() - x.mean(), low, high, _welch(x, y)


def _welch(x: Floats, y: Floats) -> float:
    """Two-sided p of Welch's t-test; NaN below the seeds that an interval needs."""
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


def compare_frames(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Compare two flat frames, as `records.reader.load_frame` reads them.

    Args:
        a: The results before, a row per record.
        b: The results after.

    Returns:
        The table of `moved_cells`, and the notes of `label_alike`.

    Raises:
        UserError: The two have no cell in common.
    """
    *flat, notes = label_alike(a, b)
    table = moved_cells(*flat)
    if table["difference"].isna().all():
        examples = [", ".join(map(str, side[CELL].iloc[0])) for side in flat]
        raise UserError(
            f"no cell in common: A has {examples[0]}, B has {examples[1]}; compare two runs of one sweep"
        )
    return table, notes


def compare_records(a: Sequence[Record], b: Sequence[Record]) -> tuple[pd.DataFrame, list[str]]:
    """As `compare_frames`, from records."""
    return compare_frames(record_rows(record_table(a)), record_rows(record_table(b)))


def any_regressed(table: pd.DataFrame) -> bool:
    """Whether some cell lost accuracy beyond noise, or stores more than before."""
    return bool((table["verdict"] == REGRESSED).any() or (table["storage"] == STORES_MORE).any())
