"""The records of several result folders as one frame."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bench import frames
from bench.labels import labelled
from bench.rows import COST, rows

# What may differ between two runs of the same job; snapshots hold seconds.
MEASURED = {*COST, "versions", "snapshots"}
FOLDER = "folder"


def gather(directories: Sequence[Path]) -> tuple[pd.DataFrame, list[str]]:
    """The flat frame of the readable records, from the first folder that has one, and what is left out.

    A record that stands in two folders counts once. Where the two differ in more than what was measured or
    with which versions, that is one of the lines. Raises UserError for a folder without records.
    """
    if len(directories) == 1:
        return frames.load(directories[0])
    found: list[pd.DataFrame] = []
    problems: list[str] = []
    for i, directory in enumerate(directories):
        table, bad = frames.read(directory)
        problems += [f"{directory}/{line}" for line in bad]
        found.append(rows(table).assign(**{FOLDER: i}))
    together = pd.concat(found, ignore_index=True)
    again = together["key"].duplicated()
    first = together[~again]
    problems += _disagreements(first, together[again], directories)
    return labelled(first.drop(columns=FOLDER).reset_index(drop=True)), problems


def _disagreements(first: pd.DataFrame, again: pd.DataFrame, directories: Sequence[Path]) -> list[str]:
    known = first.set_index("key").loc[again["key"]].reset_index()
    compared = [name for name in again if name not in MEASURED | {FOLDER}]
    # as text: lists compare by what they hold, and nothing equals nothing
    differ = {name: known[name].map(repr).to_numpy() != again[name].map(repr).to_numpy() for name in compared}
    changed = pd.DataFrame(differ, index=again.index)
    return [
        f"{directories[again[FOLDER][i]]}/records/{again['key'][i]}.json differs from the one in "
        f"{directories[known[FOLDER][place]]} in {', '.join(changed.columns[changed.loc[i]])}: "
        "the first is kept; make one of them again"
        for place, i in enumerate(changed.index)
        if changed.loc[i].any()
    ]
