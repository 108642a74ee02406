"""What a report shows: the frames it is made of, and one table or plot or both of one thing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from bench import aggregate, ranking, statistics
from bench.report.layout import Comparison


@dataclass(frozen=True)
class View:
    """The records as frames, each made when it is first asked for."""

    flat: pd.DataFrame  # `frames.load`: a row per record
    folders: tuple[Path, ...]  # the result folders that the records come from; they may hold artifacts too

    @cached_property
    def summary(self) -> pd.DataFrame:
        return aggregate.summary(self.flat)

    @cached_property
    def matrix(self) -> statistics.Matrix:
        return statistics.matrix(self.flat, self.summary)

    @cached_property
    def standings(self) -> dict[str, tuple[statistics.Matrix, pd.DataFrame]]:
        """By protocol: its part of the matrix, and how its methods stand."""
        parts = statistics.by_protocol(self.matrix)
        return {protocol: (part, statistics.standings(part)) for protocol, part in parts.items()}

    @cached_property
    def transfer(self) -> pd.DataFrame:
        return aggregate.transfer(self.flat)

    @cached_property
    def curve(self) -> pd.DataFrame:
        return aggregate.curve(self.flat)

    @cached_property
    def progress(self) -> pd.DataFrame:
        return aggregate.progress(self.flat)

    @cached_property
    def measured(self) -> pd.DataFrame:
        return aggregate.measured(self.flat)

    @cached_property
    def scores(self) -> pd.DataFrame:
        return ranking.scores(self.flat)


@dataclass(frozen=True)
class Exhibit:
    """One thing shown: `tables/<stem>.csv` of the frame, `.md` and `.tex` of the comparisons, and plots."""

    stem: str
    frame: pd.DataFrame | None = None
    comparisons: list[Comparison] = field(default_factory=list)
    plots: dict[str, Callable[[], Figure]] = field(default_factory=dict)  # by the stem of their files
    pictures: dict[str, Callable[[Path], Path]] = field(default_factory=dict)  # each writes its PNG
    printed: bool = False  # in the terminal too


Exhibitor = Callable[[View], Exhibit | None]  # None: the records do not hold it
