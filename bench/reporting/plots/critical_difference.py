"""Critical-difference diagrams: average ranks on an axis, and bars over methods that no test tells apart.

References:
    Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7, 2006; with Wilcoxon's test
    and Holm's correction in place of Nemenyi's test.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from bench.analysis.best import SIGNIFICANCE
from bench.analysis.comparison import LEAST_UNITS, average_ranks, cliques, compare_pairs
from bench.reporting.plots.style import Look, method_looks
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables.table import distinct_names

LEAST_METHODS = 3
LINE_HEIGHT = 0.2  # inches between two names
BAR_HEIGHT = 0.11  # inches between two bars
POINTS = 72  # an inch
NARROWEST = 5.4  # inches, for the title
LABEL_GAP = 0.2  # inches between the axis' ends and the names
ABOVE, BELOW = 0.55, 0.4  # inches, for the title and the note


@dataclass(frozen=True)
class Diagram:
    """What the diagram of one protocol shows."""

    protocol: str
    ranks: pd.Series  # by method, the best first
    bars: list[tuple[int, int]]  # positions in `ranks`: the first and last of methods not told apart
    n_units: int

    @property
    def title(self) -> str:
        """What stands above the axis."""
        return f"protocol {self.protocol}: average rank over {self.n_units} data sets and ipcs (1 is best)"

    @property
    def stem(self) -> str:
        """The name of its files."""
        return "critical_difference_" + re.sub(r"[^\w.-]+", "-", self.protocol)

    @property
    def half(self) -> int:
        """How many names stand at the left, the best ones."""
        return (len(self.ranks) + 1) // 2

    def name(self, position: int) -> str:
        """The method of this rank."""
        return str(self.ranks.index[position])


NOTE = f"bars: not told apart (Wilcoxon over data sets and ipcs, Holm, {SIGNIFICANCE})"


def diagrams(view: RecordsView) -> list[Diagram]:
    """A diagram for each protocol under which enough methods share enough data sets and ipcs to be tested."""
    found = []
    for protocol, (matrix, _) in view.standings.items():
        part = matrix.ranked().shared()
        if len(part.methods) < LEAST_METHODS or part.n_units < LEAST_UNITS:
            continue
        ranks = average_ranks(part)
        bars = cliques(list(ranks.index), compare_pairs(part, list(ranks.index)))
        found.append(Diagram(protocol, ranks, bars, part.n_units))
    return found


# --- drawing: heights in inches below the axis -------------------------------------------------------------


def _below(diagram: Diagram) -> float:
    """Where the first name stands, under all bars."""
    return 0.22 + BAR_HEIGHT * len(diagram.bars)


def _height(diagram: Diagram) -> float:
    return _below(diagram) + LINE_HEIGHT * diagram.half


def _names(axes: Axes, diagram: Diagram, look: dict[str, Look], width: float) -> None:
    """The best half at the left, from the top; the others at the right, so that no two lines cross."""
    k, top = len(diagram.ranks), _below(diagram)
    for i, (method, rank) in enumerate(diagram.ranks.items()):
        left = i < diagram.half
        y = top + LINE_HEIGHT * (i if left else k - 1 - i)
        edge = 1 - width if left else k + width
        style = look[str(method)]
        axes.plot([rank, rank, edge], [0, y, y], color="0.35", linewidth=0.8, zorder=1)
        axes.plot([edge], [y], **{**style.face, "markersize": 6}, clip_on=False)
        text = f"{diagram.name(i)}  {rank:.2f}" if left else f"{rank:.2f}  {diagram.name(i)}"
        axes.text(edge, y, f"   {text}   ", ha="right" if left else "left", va="center", fontsize="small")


def _panel(axes: Axes, diagram: Diagram, look: dict[str, Look], gap: float) -> None:
    """Draw axis, bars and names; `gap`: between the ends of the axis and the names, as a part of the axis."""
    k = len(diagram.ranks)
    width = gap * (k - 1)
    axes.set(xlim=(1 - width, k + width), ylim=(_height(diagram), 0), yticks=[])
    axes.xaxis.tick_top()
    axes.set_xticks(range(1, k + 1))
    axes.grid(visible=False)
    for side in ("left", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["top"].set(bounds=(1, k), color="0.1")
    axes.tick_params(top=True, length=4, labelsize="small")
    axes.set_title(diagram.title, fontsize="medium", pad=8)
    reach = 0.012 * (k - 1)
    for i, (first, last) in enumerate(diagram.bars):
        y, ends = 0.14 + BAR_HEIGHT * i, (diagram.ranks.iloc[first] - reach, diagram.ranks.iloc[last] + reach)
        axes.plot(ends, [y, y], color="0.1", linewidth=3, solid_capstyle="butt", zorder=2)
    _names(axes, diagram, look, width)
    axes.set_xlabel(NOTE, fontsize="small")


def _margin(diagram: Diagram) -> float:
    """Inches for the longest name with its rank."""
    names = [f"{diagram.name(i)}  00.00" for i in range(len(diagram.ranks))]
    size = FontProperties(size="small")
    return (
        max(TextPath((0, 0), name, prop=size).get_extents().width for name in names) / POINTS + 2 * LABEL_GAP
    )


def draw_diagram(diagram: Diagram, look: dict[str, Look]) -> Figure:
    """Draw the axis on top, bars below it, and the names under them at both sides."""
    margin, height = _margin(diagram), _height(diagram)
    axis = max(3.0, NARROWEST - 2 * margin, 0.3 * len(diagram.ranks))
    size = (axis + 2 * margin, height + ABOVE + BELOW)
    figure = Figure(figsize=size)
    box = (margin / size[0], BELOW / size[1], axis / size[0], height / size[1])
    _panel(figure.add_axes(box), diagram, look, LABEL_GAP / axis)
    return figure


def critical_difference_section(view: RecordsView) -> Section | None:
    """The average ranks, and a diagram for each protocol."""
    if not (found := diagrams(view)):
        return None
    rows = [
        {"protocol": d.protocol, "method": m, "average_rank": r, "n_units": d.n_units}
        for d in found
        for m, r in d.ranks.items()
    ]
    look = method_looks(view.summary)
    stems = distinct_names(d.stem for d in found)
    plots: dict[str, Callable[[], Figure]] = {
        stem: partial(draw_diagram, d, look) for stem, d in zip(stems, found, strict=True)
    }
    return Section("critical_difference", pd.DataFrame(rows), plots=plots)
