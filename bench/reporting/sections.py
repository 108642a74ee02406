"""What a report is made of: the records as frames, and sections with tables and plots of one thing each.

A module under tables/, plots/ or images/ has a function `NAME_section(view)` that makes one section of the
report from the frames it needs, or returns None where the records do not hold them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from bench.analysis import aggregate, comparison, compute, dd_ranking
from bench.reporting.tables.table import Comparison


@dataclass(frozen=True)
class RecordsView:
    """The records of a report as frames; each is computed when it is first used, and once."""

    flat: pd.DataFrame  # a row per record, as `records.reader.load_frame` reads them
    folders: tuple[Path, ...]  # the result folders of the records; they may hold artifacts too

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A row per cell: accuracy over seeds, ranks, storage and costs (`aggregate.summary_frame`)."""
        return aggregate.summary_frame(self.flat)

    @cached_property
    def standings(self) -> dict[str, tuple[comparison.AccuracyMatrix, pd.DataFrame]]:
        """By protocol: the accuracy of each method in each cell, and `comparison.standings` of it."""
        matrices = comparison.by_protocol(self.flat, self.summary)
        return {protocol: (matrix, comparison.standings(matrix)) for protocol, matrix in matrices.items()}

    @cached_property
    def transfer(self) -> pd.DataFrame:
        """Accuracy across architectures (`aggregate.transfer`)."""
        return aggregate.transfer(self.flat)

    @cached_property
    def curve(self) -> pd.DataFrame:
        """Accuracy in the course of the students' training; empty without curves."""
        return aggregate.training_course(self.flat)

    @cached_property
    def progress(self) -> pd.DataFrame:
        """Accuracy in the course of the distillation; empty without snapshots."""
        return aggregate.distillation_course(self.flat)

    @cached_property
    def compute(self) -> pd.DataFrame:
        """Accuracy against operations (`compute.compute_course`); empty where none were counted."""
        return compute.compute_course(self.flat)

    @cached_property
    def measured(self) -> pd.DataFrame:
        """Calibration error, agreement and worst class (`aggregate.metrics_summary`)."""
        return aggregate.metrics_summary(self.flat)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """DD-Ranking's scores (`dd_ranking.dd_ranking_scores`)."""
        return dd_ranking.dd_ranking_scores(self.flat)


@dataclass(frozen=True)
class Section:
    """A section of the report: a frame, tables, plots and pictures of one thing."""

    stem: str  # of its files in tables/
    frame: pd.DataFrame | None = None  # written to STEM.csv
    comparisons: list[Comparison] = field(default_factory=list)  # written to STEM.md and STEM.tex
    plots: dict[str, Callable[[], Figure]] = field(default_factory=dict)  # by the stem of their files
    pictures: dict[str, Callable[[Path], Path]] = field(default_factory=dict)  # by stem: write a PNG
    printed: bool = False  # in the terminal too


MakeSection = Callable[[RecordsView], Section | None]
