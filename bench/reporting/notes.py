"""Notes on data sets, which stand below every table of them and on the page."""

# ruff: noqa: RUF001  (a multiplication sign)

import dataclasses

from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables.table import Comparison

SMOKE_TEST_PIXELS = 8  # of the longer side


def dataset_notes(view: RecordsView) -> dict[str, str]:
    """A note for each data set whose images are too small for its results to carry over to others.

    Returns:
        Notes by the label of the data set.
    """
    found = view.flat[["dataset", "image_shape"]].drop_duplicates("dataset").sort_values("dataset")
    return {
        label: f"{label} has images of {height} × {width} pixels: at ipc 1 it is a smoke test, not evidence."
        for label, (_, height, width) in zip(found["dataset"], found["image_shape"], strict=True)
        if max(height, width) <= SMOKE_TEST_PIXELS
    }


def with_dataset_notes(section: Section, notes: dict[str, str]) -> Section:
    """The section, with each note below the tables whose title names its data set."""
    return dataclasses.replace(section, comparisons=[_noted(table, notes) for table in section.comparisons])


def _noted(table: Comparison, notes: dict[str, str]) -> Comparison:
    # a title is "digits, protocol quick", after a colon where something else comes first
    named = table.title.partition(", protocol ")[0].rpartition(": ")[2].split(", ")
    return dataclasses.replace(table, notes=table.notes + [notes[label] for label in notes if label in named])
