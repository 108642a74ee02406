"""The records of several result folders as one frame."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.records import columns
from bench.records.naming import labelled
from bench.records.reader import load_frame, read_table

# Measured, so different in two runs of the same job; snapshots hold seconds.
MAY_DIFFER = {*columns.COST_COLUMNS, "versions", "snapshots"}
# Slightly different on another device or with another version of torch.
MAY_DIFFER_ELSEWHERE = ["accuracy", "accuracies", "curve", *columns.MEASURED_COLUMNS]
FOLDER_COLUMN = "folder"


def merge_folders(directories: Sequence[Path]) -> tuple[pd.DataFrame, list[str]]:
    """Merge the records of several result folders; a record that is in two of them counts once.

    Args:
        directories: result folders; of two equal keys the record of the earlier folder is kept.

    Returns:
        The flat frame of all readable records, and a line for each problem: a file that cannot be read, or
        two records of one key that differ in more than what is measured, or in their accuracies with the
        same device and versions.

    Raises:
        UserError: for a folder without records.
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
    again = together["key"].duplicated()
    first = together[~again]
    problems += _disagreements(first, together[again], directories)
    return labelled(first.drop(columns=FOLDER_COLUMN).reset_index(drop=True)), problems


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
    """Where the values differ; compared as text, because some are lists, and missing ones are equal."""
    return one.map(repr).to_numpy() != other.map(repr).to_numpy()
