"""The records of several result folders as one frame."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.records import columns
from bench.records.naming import labelled
from bench.records.reader import load_frame, read_table

# What may differ between two runs of the same job; snapshots hold seconds.
MAY_DIFFER = {*columns.COST_COLUMNS, "versions", "snapshots"}
# What another device or version of torch moves a little.
MAY_DIFFER_ELSEWHERE = ["accuracy", "accuracies", "curve", *columns.MEASURED_COLUMNS]
FOLDER_COLUMN = "folder"
UNTOLD = ["None", "nan", "<NA>", "[]"]  # of a record from before it was told


def merge_folders(directories: Sequence[Path]) -> tuple[pd.DataFrame, list[str]]:
    """The flat frame of the readable records, from the first folder that has one, and what is left out.

    A record that stands in two folders counts once. Where the two differ in more than what was measured, or
    in their accuracies though device and versions are the same, that is one of the lines. Raises UserError
    for a folder without records.
    """
    if len(directories) == 1:
        return load_frame(directories[0])
    found: list[pd.DataFrame] = []
    problems: list[str] = []
    for i, directory in enumerate(directories):
        table, bad = read_table(directory)
        problems += [f"{directory}/{line}" for line in bad]
        found.append(columns.record_rows(table).assign(**{FOLDER_COLUMN: i}))
    together = pd.concat(found, ignore_index=True)
    # what is known of how students were trained is kept before what an older ddbench left
    together = together.sort_values("steps", key=pd.isna, kind="stable")
    again = together["key"].duplicated()
    first = together[~again]
    problems += _disagreements(first, together[again], directories)
    return labelled(first.sort_index().drop(columns=FOLDER_COLUMN).reset_index(drop=True)), problems


def _disagreements(first: pd.DataFrame, again: pd.DataFrame, directories: Sequence[Path]) -> list[str]:
    known = first.set_index("key").loc[again["key"]].reset_index()
    compared = [name for name in again if name not in MAY_DIFFER | {FOLDER_COLUMN}]
    changed = pd.DataFrame({name: _differ(known[name], again[name]) for name in compared}, index=again.index)
    elsewhere = _differ(known["device"], again["device"]) | _differ(known["versions"], again["versions"])
    changed.loc[elsewhere, MAY_DIFFER_ELSEWHERE] = False
    return [
        f"{directories[again[FOLDER_COLUMN][i]]}/records/{again['key'][i]}.json differs from the one in "
        f"{directories[known[FOLDER_COLUMN][place]]} in {', '.join(changed.columns[changed.loc[i]])}: "
        "the latter is kept; make one of them again"
        for place, i in enumerate(changed.index)
        if changed.loc[i].any()
    ]


def _differ(one: pd.Series, other: pd.Series) -> NDArray[np.bool_]:
    """Where both say something, and not the same; as text, so that lists are compared by what they hold."""
    told, again = (values.map(repr).to_numpy() for values in (one, other))
    return (told != again) & ~np.isin(told, UNTOLD) & ~np.isin(again, UNTOLD)
