"""What a report shows: the frames it is made of, and one table or plot or both of one thing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from bench.analysis import aggregate, best, comparison, dd_ranking
from bench.report.tables.table import Comparison


@dataclass(frozen=True)
class RecordsView:
    """The records as frames, each made when it is first asked for."""

    flat: pd.DataFrame  # `frames.load`: a row per record
    folders: tuple[Path, ...]  # the result folders that the records come from; they may hold artifacts too

    @cached_property
    def summary(self) -> pd.DataFrame:
        return aggregate.summary(self.flat)

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """The summary with the columns of `best.rank_cells`, which summary.csv leaves out."""
        return best.rank_cells(self.summary)

    @cached_property
    def matrix(self) -> comparison.AccuracyMatrix:
        return comparison.accuracy_matrix(self.flat, self.summary)

    @cached_property
    def standings(self) -> dict[str, tuple[comparison.AccuracyMatrix, pd.DataFrame]]:
        """By protocol: its part of the matrix, and how its methods stand."""
        found = {}
        for protocol, part in comparison.by_protocol(self.matrix).items():
            over = comparison.over_budget(self.summary, part)
            found[protocol] = (part, comparison.standings(part, over))
        return found

    @cached_property
    def transfer(self) -> pd.DataFrame:
        return aggregate.transfer(self.flat)

    @cached_property
    def curve(self) -> pd.DataFrame:
        return aggregate.training_course(self.flat)

    @cached_property
    def progress(self) -> pd.DataFrame:
        return aggregate.distillation_course(self.flat)

    @cached_property
    def measured(self) -> pd.DataFrame:
        return aggregate.metrics_summary(self.flat)

    @cached_property
    def scores(self) -> pd.DataFrame:
        return dd_ranking.dd_ranking_scores(self.flat)


@dataclass(frozen=True)
class Section:
    """One thing shown: `tables/<stem>.csv` of the frame, `.md` and `.tex` of the comparisons, and plots."""

    stem: str
    frame: pd.DataFrame | None = None
    comparisons: list[Comparison] = field(default_factory=list)
    plots: dict[str, Callable[[], Figure]] = field(default_factory=dict)  # by the stem of their files
    pictures: dict[str, Callable[[Path], Path]] = field(default_factory=dict)  # each writes its PNG
    printed: bool = False  # in the terminal too


MakeSection = Callable[[RecordsView], Section | None]  # None: the records do not hold it
