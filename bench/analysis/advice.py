"""What records say about a data set that may not be among them: what was best there. No torch.

The evidence is one table: a result folder, data set, ipc, protocol and network. Of what fits the storage and
the time there, one test for all pairs says what is not told apart from the best, and the cheapest of that is
advised: what costs more has not shown to be worth it. Folders are not pooled: the more variants a test
compares, the less it tells, until random images are as good as any. Where nothing is near there is no advice.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.analysis.aggregate import summary_frame
from bench.analysis.best import Separation, separate_rows
from bench.core.errors import UserError
from bench.core.words import count, duration
from bench.records.columns import Row
from bench.records.naming import CELL

NEAR = 1.5  # the largest distance of data sets that are similar, see `distance`
MOST_IPC = 2.0  # the largest factor between the asked ipc and that of the evidence
SPENT = ["prepare_s", "teacher_s", "distill_s", "tune_s"]
PLACE = ["folder", "protocol", "eval_arch"]
COLOURS_OFF = 2.0  # distance between grey and coloured images: never near
ADVISED, ALIKE, WORSE = "advised", "not told apart", "worse"
OVER_TIME, UNMEASURED = "over the time", "cost unknown"


class NoEvidence(UserError):
    """The records do not tell."""


@dataclass(frozen=True)
class Question:
    """What advice is wanted for."""

    label: str
    fingerprint: str
    image_shape: tuple[int, int, int]
    n_classes: int
    ipc: int
    seconds: float
    protocol: str | None = None
    architecture: str | None = None


@dataclass(frozen=True)
class Difference:
    """One method's mean less another's, a fraction, and whether the test tells them apart."""

    first: str
    second: str
    points: float
    told: bool


@dataclass(frozen=True)
class Advice:
    """The evidence, and what it says.

    Attributes:
        rows: of the table: the columns of a summary, `seconds` and `standing`. The advised one is first, then
            what is not told apart from the best, by its cost, then the others in time, then the rest.
        best: the row with the highest mean in time.
        differences: of the best and the advised to the runner-up and to random real images, as far as those
            are in time.
        least_difference: that would have been told, a fraction; NaN for a single method.
        notes: how the evidence differs from the question, a line each.
        folder: where it is from.
        records: of the advised method there, a row of the flat frame each.
    """

    rows: pd.DataFrame
    best: pd.Series
    differences: list[Difference]
    least_difference: float
    notes: list[str]
    folder: str
    records: list[Row]

    @property
    def advised(self) -> pd.Series:
        """The row of the advised method."""
        return self.rows.iloc[0]


def advise(frames: Mapping[str, pd.DataFrame], question: Question) -> Advice:
    """Find what was best within the storage and the time on the most similar data set.

    Args:
        frames: The flat frame of each result folder.
        question: What is asked.

    Raises:
        NoEvidence: no data set, ipc or method is near enough, or there are no seeds to tell methods apart;
            the message says what there is.
    """
    rows = pd.concat([_competing(flat).assign(folder=name) for name, flat in frames.items()])
    rows, on_data = _on_similar_data(rows, question)
    rows, at_ipc = _at_near_ipc(rows, question)
    rows, where = _in_one_place(rows, question)
    rows, timed_on = _on_one_device(rows)
    rows = rows.sort_values(["accuracy_mean", "method"], ascending=[False, True])
    in_time = (rows["seconds"] <= question.seconds).to_numpy(bool)  # not where they are unknown
    if not in_time.any():
        raise NoEvidence(_none_in_time(rows, question.seconds))
    timely = rows[in_time].reset_index(drop=True)
    found = separate_rows(timely[["accuracy_mean", "accuracy_std", "n_seeds"]].to_numpy(float))
    if found is None:
        top = timely.iloc[0]
        raise NoEvidence(
            f"each method there has one seed, so that none can be told apart; the highest, {top['method']}, "
            f"had {100 * top['accuracy_mean']:.1f} %"
        )
    best, timely = timely.iloc[0], timely.assign(place=found.rank)
    ordered = _standings(timely, rows[~in_time])
    advised, folder = ordered.iloc[0], str(ordered["folder"].iloc[0])
    flat = frames[folder]
    cell = ordered.loc[[0], CELL].astype({"ipc": flat["ipc"].dtype})
    return Advice(
        ordered,
        best,
        _differences(timely, found, advised["method"]),
        found.least_difference,
        [on_data, at_ipc, where, timed_on],
        folder,
        cast(list[Row], flat.merge(cell, on=CELL).to_dict("records")),
    )


def _competing(flat: pd.DataFrame) -> pd.DataFrame:
    """The summary of a folder: what fits its budget, with names, shapes and seconds (NaN: unknown)."""
    names = ["method", "dataset", "protocol", "method_name", "dataset_name", "dataset_fingerprint"]
    more = flat[[*names, "image_shape", "n_classes"]].drop_duplicates(["method", "dataset", "protocol"])
    rows = summary_frame(flat).merge(more, on=["method", "dataset", "protocol"])
    seconds = rows[SPENT].sum(axis=1, skipna=False)
    return rows.assign(seconds=seconds)[rows["competes"] & rows["ipc"].notna()]


# --- where the evidence is from -----------------------------------------------------------------------------


def distance(question: Question, image_shape: Sequence[int], n_classes: int) -> float:
    """How unlike two data sets are: factors of two of height and width, halved, and of the classes.

    Grey and coloured images are never near. Records do not hold the number of training images.
    """
    (c, *sides), (channels, *others) = question.image_shape, image_shape
    size = sum(abs(math.log2(a / b)) for a, b in zip(sides, others, strict=True)) / 2
    colours = COLOURS_OFF if c != channels else 0.0
    return size + abs(math.log2(question.n_classes / n_classes)) + colours


def _on_similar_data(rows: pd.DataFrame, question: Question) -> tuple[pd.DataFrame, str]:
    """The rows of the same images, else of a near data set of that name, else of the nearest one."""
    if rows.empty:
        raise NoEvidence("there is no record of a set that fits its budget")

    def unlike(row: Row) -> tuple[bool, bool, bool, float, str]:
        apart = distance(question, row["image_shape"], row["n_classes"])
        other = row["dataset_fingerprint"] != question.fingerprint
        renamed = row["dataset_name"] != question.label
        return other and apart > NEAR, other, renamed, apart, row["dataset_name"]

    sets = cast(list[Row], rows.drop_duplicates("dataset_fingerprint").to_dict("records"))
    row = min(sets, key=unlike)
    far, other, *_ = unlike(row)
    told = f"{row['dataset_name']} ({_shape(row['image_shape'])}, {row['n_classes']} classes)"
    own = f"{question.label} ({_shape(question.image_shape)}, {question.n_classes} classes)"
    if far:
        raise NoEvidence(f"no data set with records is like {own}; the nearest is {told}")
    same = f"the most similar to {own}: how far that carries, nobody knows" if other else "the same images"
    return rows[rows["dataset_fingerprint"] == row["dataset_fingerprint"]], f"data: {told}, {same}"


def _shape(shape: Sequence[int]) -> str:
    channels, *sides = shape
    return " x ".join(map(str, [*sides, channels]))


def _at_near_ipc(rows: pd.DataFrame, question: Question) -> tuple[pd.DataFrame, str]:
    there = sorted(int(ipc) for ipc in rows["ipc"].unique())
    nearest = min(there, key=lambda ipc: (abs(math.log(ipc / question.ipc)), ipc))
    if max(nearest / question.ipc, question.ipc / nearest) > MOST_IPC:
        known = ", ".join(map(str, there))
        raise NoEvidence(f"no set of about {question.ipc} images per class was scored; there are {known}")
    note = "" if nearest == question.ipc else f", the nearest to {question.ipc}"
    return rows[rows["ipc"] == nearest], f"images per class: {nearest}{note}"


def _in_one_place(rows: pd.DataFrame, question: Question) -> tuple[pd.DataFrame, str]:
    """The table with most seeds over its methods, of the protocol and network that are asked for if any.

    Of a method's variants the one with most seeds counts, so that no ablation of one method is preferred.
    """
    for name, wanted in (("protocol", question.protocol), ("eval_arch", question.architecture)):
        if wanted is not None and wanted not in set(rows[name]):
            known = ", ".join(sorted(rows[name].unique()))
            raise NoEvidence(f"nothing there was scored with {wanted}; there are {known}")
        rows = rows if wanted is None else rows[rows[name] == wanted]
    seeds = rows.groupby([*PLACE, "method_name"])["n_seeds"].max().groupby(PLACE).sum()
    folder, protocol, arch = seeds.sort_values(ascending=False, kind="stable").index.tolist()[0]
    note = f", with the most seeds of {count(len(seeds), 'table')}" if len(seeds) > 1 else ""
    there = rows[(rows[PLACE] == [folder, protocol, arch]).all(axis=1)]
    # of a method distilled on several networks the sets of the students' own
    own = there.assign(elsewhere=~there["distill_arch"].isin([arch, "any"]))
    one_each = own.sort_values(["elsewhere", "distill_arch"], kind="stable").drop_duplicates("method")
    return one_each, f"protocol {protocol}, students {arch}{note}"


def _on_one_device(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The rows without the seconds of all devices but the one with the most seeds, and a note on it."""
    seeds = rows.groupby("device")["n_seeds"].sum()
    most = str(seeds.sort_values(ascending=False, kind="stable").index[0])
    beside = "" if rows["exclusive"].all() else ", some beside other work"
    others = [device for device in seeds.index if device != most]
    note = f", and not compared with those on {'; '.join(others)}" if others else ""
    seconds = rows["seconds"].where(rows["device"] == most)
    told = f"seconds: measured on {most}{beside}{note}; preparation and teacher charged in full"
    return rows.assign(seconds=seconds), told


# --- what it says -------------------------------------------------------------------------------------------


def _standings(timely: pd.DataFrame, late: pd.DataFrame) -> pd.DataFrame:
    """All rows in the order of `Advice.rows`, with `standing`."""
    first = timely["place"] == 1
    alike = timely[first].sort_values(["seconds", "accuracy_mean"], ascending=[True, False], kind="stable")
    parts = [
        alike.assign(standing=[ADVISED] + [ALIKE] * (len(alike) - 1)),
        timely[~first].assign(standing=WORSE),
        late.assign(standing=np.where(late["seconds"].isna(), UNMEASURED, OVER_TIME)),
    ]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def _differences(timely: pd.DataFrame, found: Separation, advised: str) -> list[Difference]:
    """Of the best to the runner-up, of the advised to the best, and of both to random real images."""
    names: list[str] = timely["method"].tolist()
    best, other = 0, names.index(advised)
    random: NDArray[np.int64] = np.flatnonzero(timely["method_name"] == "random_real")
    pairs = [(best, 1)] if len(names) > 1 else []
    pairs += [(other, best)] + [(one, int(random[0])) for one in (best, other) if len(random)]
    kept = dict.fromkeys((a, b) for a, b in pairs if a != b)
    mean, apart = timely["accuracy_mean"].to_numpy(float), found.above | found.above.T
    return [Difference(names[a], names[b], float(mean[a] - mean[b]), bool(apart[a, b])) for a, b in kept]


def _none_in_time(rows: pd.DataFrame, seconds: float) -> str:
    known = rows[rows["seconds"].notna()].sort_values("seconds", kind="stable")
    if known.empty:
        return "all there was distilled elsewhere, or on several devices, at a cost that nobody measured"
    least = known.iloc[0]
    return (
        f"nothing there was made within {span(seconds)}: the fastest, {least['method']}, "
        f"took {span(least['seconds'])}"
    )


def span(seconds: float) -> str:
    """A span of time, be it the milliseconds in which real images are chosen."""
    return duration(seconds) if seconds >= 10 or seconds == 0 else f"{seconds:.2g} s"
