"""What records say about a data set that may not be among them: what was best there. No torch.

The evidence comes from the most similar data set with records, under one protocol and on one network.
Advised is the highest mean among what fits the storage and the time; beside it stand those that are not told
apart from it (one test for all pairs), which are as good as far as the seeds tell, and the cheapest of them.
Where nothing is near, there is no advice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from bench.analysis.aggregate import summary_frame
from bench.analysis.best import separate_rows
from bench.core.errors import UserError
from bench.core.words import count, duration
from bench.records.columns import Row
from bench.records.naming import CELL

NEAR = 1.5  # the largest distance of data sets that are similar, see `distance`
MOST_IPC = 2.0  # the largest factor between the asked ipc and that of the evidence
SPENT = ["prepare_s", "teacher_s", "distill_s", "tune_s"]
COLOURS_OFF = 2.0  # distance between grey and coloured images: never near
SAME_NAME = 0.1


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
class Advice:
    """The evidence, and what it says.

    Attributes:
        rows: of the place, the advised one and then the best first: the columns of a summary and `seconds`,
        `slow` (over the time),
            `equal` (not told apart from the best in time), `advised`.
        notes: how the evidence differs from the question, a line each.
        told: whether seeds could tell anything.
        records: of the advised method there, a row of the flat frame each.
    """

    rows: pd.DataFrame
    notes: list[str]
    told: bool
    records: list[Row]

    @property
    def advised(self) -> pd.Series:
        """The row of the advised method."""
        return self.rows.iloc[0]

    @property
    def cheapest(self) -> pd.Series:
        """The cheapest row that is not told apart from it."""
        return self.rows[self.rows["equal"]].sort_values("seconds", kind="stable").iloc[0]

    @property
    def over_random(self) -> float | None:
        """Its mean less that of random real images, a fraction; None without those."""
        random = self.rows[self.rows["method_name"] == "random_real"]
        return (
            None if random.empty else float(self.advised["accuracy_mean"] - random["accuracy_mean"].iloc[0])
        )


def advise(flat: pd.DataFrame, question: Question) -> Advice:
    """What was best within the storage and the time on the most similar data set.

    Args:
        flat: A row per record.
        question: What is asked.

    Raises:
        NoEvidence: no data set, ipc or method is near enough; the message says what there is.
    """
    names = ["method", "dataset", "protocol", "method_name", "dataset_name", "dataset_fingerprint"]
    more = flat[[*names, "image_shape", "n_classes"]].drop_duplicates(["method", "dataset", "protocol"])
    rows = summary_frame(flat).merge(more, on=["method", "dataset", "protocol"])
    rows = rows[rows["competes"] & rows["ipc"].notna()].assign(seconds=lambda r: r[SPENT].sum(axis=1))
    rows, on_data = _on_similar_data(rows, question)
    rows, at_ipc = _at_near_ipc(rows, question)
    rows, where = _in_one_place(rows, question)
    rows = rows.sort_values(["accuracy_mean", "method"], ascending=[False, True]).reset_index(drop=True)
    rows["slow"] = rows["seconds"] > question.seconds
    fast = rows.index[~rows["slow"]]
    if fast.empty:
        least = rows.sort_values("seconds", kind="stable").iloc[0]
        raise NoEvidence(
            f"nothing there was made within {duration(question.seconds)}: the fastest, {least['method']}, "
            f"took {duration(least['seconds'])}"
        )
    numbers = rows[["accuracy_mean", "accuracy_std", "n_seeds"]].to_numpy(float)
    found = separate_rows(numbers[fast])
    equal = np.arange(len(fast)) == 0 if found is None else found.rank == 1
    rows["equal"] = False
    rows.loc[fast[equal], "equal"] = True
    rows["advised"] = rows.index == fast[0]
    rows = rows.sort_values(["advised"], ascending=False, kind="stable").reset_index(drop=True)
    cell = rows.loc[[0], CELL].astype({"ipc": flat["ipc"].dtype})
    return Advice(
        rows, [on_data, at_ipc, where, _device(rows)], found is not None, _rows(flat.merge(cell, on=CELL))
    )


def distance(question: Question, image_shape: tuple[int, int, int], n_classes: int) -> float:
    """How unlike two data sets are, in factors of two of the side and of the number of classes.

    Grey and coloured images are never near.
    """
    (c, side, _), (channels, other, _) = question.image_shape, image_shape
    gaps = abs(math.log2(side / other)) + abs(math.log2(question.n_classes / n_classes))
    return gaps + (COLOURS_OFF if c != channels else 0.0)


def _on_similar_data(rows: pd.DataFrame, question: Question) -> tuple[pd.DataFrame, str]:
    sets = rows.drop_duplicates("dataset")
    if sets.empty:
        raise NoEvidence("there is no record of a set that fits its budget")

    def unlike(row: Row) -> float:
        if row["dataset_fingerprint"] == question.fingerprint:
            return 0.0
        named = SAME_NAME / 2 if row["dataset_name"] == question.label else SAME_NAME
        return named + distance(question, tuple(row["image_shape"]), row["n_classes"])

    apart, name, row = min(((unlike(row), row["dataset"], row) for row in _rows(sets)), key=lambda x: x[:2])
    told = f"{name} ({_shape(row['image_shape'])}, {row['n_classes']} classes)"
    own = f"{question.label} ({_shape(question.image_shape)}, {question.n_classes} classes)"
    if apart > NEAR:
        raise NoEvidence(f"no data set with records is like {own}; the nearest is {told}")
    same = (
        "the same images" if apart == 0 else f"the most similar to {own}: how far that carries, nobody knows"
    )
    return rows[rows["dataset"] == name], f"data: {told}, {same}"


def _rows(frame: pd.DataFrame) -> list[Row]:
    return cast(list[Row], frame.to_dict("records"))


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
    """The protocol and the network under which most methods were scored, or those that are asked for."""
    for name, wanted in (("protocol", question.protocol), ("eval_arch", question.architecture)):
        if wanted is not None and wanted not in set(rows[name]):
            known = ", ".join(sorted(rows[name].unique()))
            raise NoEvidence(f"nothing there was scored with {wanted}; there are {known}")
        rows = rows if wanted is None else rows[rows[name] == wanted]
    methods = rows.groupby(["protocol", "eval_arch"])["method"].nunique()
    protocol, arch = methods.sort_values(ascending=False, kind="stable").index.tolist()[0]
    others = len(methods) - 1
    note = f", with the most methods of {count(others + 1, 'place')}" if others else ""
    rows = rows[(rows["protocol"] == protocol) & (rows["eval_arch"] == arch)]
    return rows.drop_duplicates("method"), f"protocol {protocol}, students {arch}{note}"


def _device(rows: pd.DataFrame) -> str:
    return f"seconds: measured on {', '.join(sorted(set(rows['device'])))}, charged in full"
