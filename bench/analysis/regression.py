"""What changed between two result sets, A and B, beyond the noise of their seeds. No torch, no drawing."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from bench.analysis.aggregate import deduplicate, grouped, warm_seconds
from bench.analysis.best import SIGNIFICANCE
from bench.analysis.comparison import holm
from bench.analysis.devices import device_shares, joined_devices
from bench.analysis.intervals import EXACT_DIGITS, floored, moderated, t_interval
from bench.core.errors import UserError
from bench.records.columns import record_rows, record_table
from bench.records.naming import CELL, labelled
from bench.records.schema import Record

LABEL_NAMES: Final = {"method": "method_name", "dataset": "dataset_name", "protocol": "protocol_name"}
REGRESSED, IMPROVED, TOO_FEW_SEEDS = "regressed", "improved", "too few seeds"
STORES_MORE, STORES_LESS = "stores more", "stores less"
MOST_NAMES_IN_NOTE = 3
POWER = 0.8  # the share of cases in which a drop of `detectable` is found


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

    Seeds whose sets have one key in A and B are paired: it is the same set, or one that was distilled again
    in the same way. Else seeds of A and B are independent: two settings of one seed do not share their noise.
    The variances of all cells, paired and unpaired ones apart, moderate each other, so that many cells of few
    seeds see more than each alone.

    Args:
        a: A flat frame labelled by `label_alike`.
        b: The other.

    Returns:
        A row per cell of either frame. `mean_a`, `mean_b`: fractions. `difference`: B - A, with `ci_low` and
        `ci_high`, its 95 % interval over seeds. `p`: moderated t-test; `p_holm`: with Holm's correction over
        cells. `detectable`: a drop that would be called a regression in four of five cases. `paired`.
        `verdict`: regressed or improved where `p_holm` is under 0.05. `storage`: whether B stores more or
            fewer
        bytes. Seconds, their devices and bytes of both sides.

    References:
        Smyth, SAGMB 3, 2004: the moderated t-test.
    """
    table = _cells(a).merge(_cells(b), on=CELL, how="outer", suffixes=("_a", "_b"))
    pairs = [_spread(x, y) for x, y in zip(table.pop("seeds_a"), table.pop("seeds_b"), strict=True)]
    table[list(_Spread._fields)] = np.array(pairs, float).reshape(-1, len(_Spread._fields))
    table["difference"] = table["mean_b"] - table["mean_a"]
    table = _tested(table).drop(columns=["variance", "freedom", "weight"])
    table["paired"] = table["paired"] == 1
    table["verdict"] = [_verdict(row) for row in table.to_dict("records")]
    before, after = table["stored_bytes_a"], table["stored_bytes_b"]
    table["storage"] = np.select([after > before, after < before], [STORES_MORE, STORES_LESS], "")
    for name in ("exempt", "within_budget"):
        table[name] = table.pop(f"{name}_b").combine_first(table.pop(f"{name}_a")).astype(bool)
    return table.sort_values([*CELL[1:], "method"], ignore_index=True)


def _cells(side: pd.DataFrame) -> pd.DataFrame:
    """A row per cell: accuracy and artifact by seed, seconds to prepare and distill, stored bytes."""
    rows = warm_seconds(deduplicate(side))
    scored = list(zip(rows["seed"], rows["artifact"], rows["accuracy"], strict=True))
    found = (
        grouped(rows.assign(scored=pd.Series(scored, rows.index), device=device_shares(rows)), CELL)
        .agg(
            seeds=("scored", tuple),
            n_seeds=("accuracy", "size"),
            prepare_s=("prepare_s", "mean"),
            distill_s=("distill_s", "mean"),
            stored_bytes=("stored_bytes", "max"),
            exempt=("exempt", "all"),
            within_budget=("within_budget", "all"),
            device=("device", joined_devices),
        )
        .reset_index()
    )
    return found.assign(seconds=found.pop("prepare_s") + found.pop("distill_s"))


class _Spread(NamedTuple):
    """The seeds of a cell in A and B; NaN where one side lacks it."""

    mean_a: float
    mean_b: float
    variance: float  # of one seed, or of the difference of a pair
    freedom: float  # degrees of freedom of it: 0 where there are too few seeds
    weight: float  # the variance of the difference of means is `variance * weight`
    paired: float


def _spread(a: Any, b: Any) -> _Spread:
    """From the (seed, artifact, accuracy) of both sides."""
    x, y = ({(s, k): v for s, k, v in side} if isinstance(side, tuple) else {} for side in (a, b))
    both = sorted(x.keys() & y.keys())
    if len(both) > 1:
        ours, theirs = np.array([(x[key], y[key]) for key in both]).T
        variance = float(np.var(theirs - ours, ddof=1))
        return _Spread(ours.mean(), theirs.mean(), variance, len(both) - 1, 1 / len(both), 1)
    ours, theirs = (np.array(sorted(side.values()), float) for side in (x, y))
    mean_a, mean_b = (float(side.mean()) if len(side) else np.nan for side in (ours, theirs))
    if min(len(ours), len(theirs)) < 2:
        return _Spread(mean_a, mean_b, np.nan, 0, np.nan, 0)
    freedom = len(ours) + len(theirs) - 2
    squares = np.square(ours - mean_a).sum() + np.square(theirs - mean_b).sum()
    return _Spread(mean_a, mean_b, squares / freedom, freedom, 1 / len(ours) + 1 / len(theirs), 0)


def _tested(table: pd.DataFrame) -> pd.DataFrame:
    """Add the interval, p-values and what could have been detected."""
    table[["ci_low", "ci_high", "p", "detectable"]] = np.nan
    tested = table["freedom"] > 0
    for paired in (0, 1):
        where = tested & (table["paired"] == paired)
        part = table[where]
        if part.empty:
            continue
        own, degrees = floored(part["variance"].to_numpy(float)), part["freedom"].to_numpy(float)
        variance, freedom = moderated(own, degrees) if own.any() else (own, degrees)
        error = np.sqrt(variance * part["weight"])
        difference = part["difference"].round(EXACT_DIGITS)
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = np.where(difference == 0, 0, np.abs(difference) / error)
        table.loc[where, "p"] = 2 * stats.t.sf(statistic, freedom)
        low, high = t_interval(difference, np.square(error), freedom)
        table.loc[where, "ci_low"], table.loc[where, "ci_high"] = low, high
        hardest = stats.t.isf(SIGNIFICANCE / 2 / tested.sum(), freedom)  # Holm's first step
        table.loc[where, "detectable"] = (hardest + stats.t.isf(1 - POWER, freedom)) * error
    return table.assign(p_holm=holm(table["p"].to_numpy(float)))


def _verdict(row: dict[Any, Any]) -> str:
    if np.isnan(row["difference"]):
        return "only in B" if np.isnan(row["mean_a"]) else "only in A"
    if np.isnan(row["p"]):
        return TOO_FEW_SEEDS
    certain = row["p_holm"] < SIGNIFICANCE
    return (REGRESSED if row["difference"] < 0 else IMPROVED) if certain else ""


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
