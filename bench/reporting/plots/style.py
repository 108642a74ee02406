"""What all plots share: the looks of methods, panels, axes, legend and saving."""

import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from bench.core.io import replacing
from bench.reporting.method_names import short_names

# seaborn's colour-blind-safe palette without pale pink and yellow, which are too light on white paper
COLOURS = [sns.color_palette("colorblind")[i] for i in (0, 1, 2, 3, 4, 5, 7, 9)]
MARKERS = "osD^vP*X<>pHd"  # 13, with 8 colours: 104 pairs before one repeats
DASHES = ["--", ":", "-.", (0, (5, 1, 1, 1, 1, 1))]
PANEL, ALONE = (3.3, 2.7), (4.6, 3.4)  # inches of a panel, and of a single one
MOST_TICKS = 5
# file formats and their metadata: no date or version, so that the same figure has the same bytes
PLOT_FORMATS: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}}
ABREAST = 3  # panels of a single column, side by side
PANEL_SIZE = 4.5  # of a marker, in points
LARGER = {"*": 1.6, "P": 1.3, "X": 1.3, "d": 1.2}  # markers that cover little of their box
FAR = 0.3  # of accuracy, a fraction
MOST_NAMES = 45  # in a legend
MOST_PANELS = 100  # of one figure; more would take over a minute to draw

PLOT_STYLE: dict[str, Any] = {
    **sns.axes_style("whitegrid"),
    **sns.plotting_context("paper"),
    "text.parse_math": False,  # a label may hold a dollar sign
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same
    "svg.hashsalt": "ddbench",
    "axes.linewidth": 0.8,
    "grid.linewidth": 0.5,
    "savefig.dpi": 200,
}


class TooMuchToDraw(Exception):
    """There is more than one figure can show."""


def limit_names(n: int, what: str, most: int) -> None:
    """Raise TooMuchToDraw if there are more than `most` of something."""
    if n > most:
        raise TooMuchToDraw(f"{n} {what}, at most {most} are drawn")


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    label: str  # its short name
    colour: Any
    marker: str
    dash: Any
    hollow: bool = False  # the second time that a colour is used: differs in grey print too

    @property
    def face(self) -> dict[str, Any]:
        """Its marker, as arguments of `Line2D`."""
        inside, edge = ("white", self.colour) if self.hollow else (self.colour, "white")
        size = PANEL_SIZE * LARGER.get(self.marker, 1)
        return {
            "marker": self.marker,
            "markersize": size,
            "markerfacecolor": inside,
            "markeredgecolor": edge,
            "markeredgewidth": 1 if self.hollow else 0.3,
        }


@dataclass(frozen=True)
class Panel:
    """Rows of a summary that are drawn into one pair of axes, and its place in the figure."""

    title: str
    row: int
    column: int
    rows: pd.DataFrame


# --- what goes where ----------------------------------------------------------------------------------------


def natural_order(name: str) -> list[tuple[int, str]]:
    """A sort key under which steps=100 comes before steps=1000."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def method_looks(summary: pd.DataFrame) -> dict[str, Look]:
    """The look of each method, in the order of the legend.

    It depends on all methods of the summary: pass the whole one, so that all plots agree.
    """
    n = len(COLOURS)
    exempt = sorted(summary.loc[summary["exempt"], "method"].unique(), key=natural_order)
    distilled = sorted(set(summary["method"]) - set(exempt), key=natural_order)
    name = short_names([*distilled, *exempt])
    found = {
        method: Look(name[method], COLOURS[i % n], MARKERS[i % len(MARKERS)], "-", hollow=i // n % 2 == 1)
        for i, method in enumerate(distilled)
    }
    ceilings = {
        method: Look(name[method], "0.25", "", DASHES[i % len(DASHES)]) for i, method in enumerate(exempt)
    }
    return found | ceilings


def make_panels(summary: pd.DataFrame) -> list[Panel]:
    """Make a row per data set, protocol and distillation architecture, a column per evaluation architecture.

    Methods that need no network ("any") are drawn beside every distillation architecture.
    """
    archs = sorted(summary["eval_arch"].unique())
    protocols = summary["protocol"].nunique() > 1
    found: list[Panel] = []
    row = 0
    for (dataset, protocol), part in summary.groupby(["dataset", "protocol"]):
        distilled = sorted(set(part["distill_arch"]) - {"any"}) or ["any"]
        for arch in distilled:
            rows = part[part["distill_arch"].isin([arch, "any"])]
            where = f"{dataset}, {protocol}" if protocols else str(dataset)
            how = f"{arch} → " if len(distilled) > 1 else "scored on "
            found += [
                Panel(f"{where}\n{how}{name}", row, archs.index(name), group)
                for name, group in rows.groupby("eval_arch")
            ]
            row += 1
    return found


def panel_by_row(frame: pd.DataFrame) -> list[Panel]:
    """Keep one panel of each row: evaluated on its distillation architecture, else on the first one."""

    def rank(panel: Panel) -> tuple[bool, int]:
        return not (panel.rows["distill_arch"] == panel.rows["eval_arch"]).any(), panel.column

    found: dict[int, Panel] = {}
    for panel in sorted(make_panels(frame), key=rank):
        found.setdefault(panel.row, replace(panel, column=0))
    return [found[row] for row in sorted(found)]


def panel_by_ipc(frame: pd.DataFrame) -> list[Panel]:
    """As `panel_by_row`, with a column for each ipc; the whole training set is drawn into each."""
    whole = 0  # the column of the whole training set, if there is nothing else
    ipcs = ipcs_in(frame) or [whole]
    return [
        replace(
            panel,
            title=panel.title.replace("\n", f", ipc {ipc}\n" if ipc else "\n"),
            column=ipcs.index(ipc),
            rows=panel.rows[panel.rows["ipc"].isna() | (panel.rows["ipc"] == ipc)],
        )
        for panel in panel_by_row(frame)
        for ipc in ipcs_in(panel.rows) or [whole]
    ]


def _errors(rows: pd.DataFrame) -> NDArray[np.float64]:
    """Distances [2,N] to the ends of the interval in percent, for `errorbar`; NaN where there is none."""
    low = rows["accuracy_mean"] - rows["accuracy_ci_low"]
    high = rows["accuracy_ci_high"] - rows["accuracy_mean"]
    return np.array([low, high], dtype=np.float64).clip(min=0) * 100


def accuracy_floor(rows: pd.DataFrame) -> float:
    """Find where an axis of accuracy begins, so that a few far below do not press the others together.

    Args:
        rows: Of one panel, with `accuracy_mean`.

    Returns:
        The lowest `accuracy_mean` to be drawn, a fraction; 0 unless at most a quarter of the rows are below a
        gap of `FAR`, and of 1.5 times what lies above it.
    """
    means = sorted(rows["accuracy_mean"])
    floor = 0.0
    for i in range(1, len(means) // 4 + 1):
        if means[i] - means[i - 1] > max(FAR, 1.5 * (means[-1] - means[i])):
            floor = means[i]
    return floor


def ipcs_in(rows: pd.DataFrame) -> list[int]:
    """The ipc in these rows, sorted, without the whole training set."""
    return sorted(int(ipc) for ipc in rows["ipc"].dropna().unique())


# --- drawing ------------------------------------------------------------------------------------------------


def draw_ceiling(axes: Axes, rows: pd.DataFrame, look: dict[str, Look], *, vertical: bool = False) -> None:
    """Draw the accuracy on the whole training set as a horizontal line, or a vertical one."""
    for method, group in rows[rows["exempt"]].groupby("method"):
        style = look[str(method)]
        line = axes.axvline if vertical else axes.axhline
        level = 100 * group["accuracy_mean"].mean()
        line(level, color=style.colour, linestyle=style.dash, linewidth=1.2, zorder=1)


def _distilled(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[~rows["exempt"] & rows["ipc"].notna()].sort_values("ipc", kind="stable")


def method_lines(rows: pd.DataFrame, look: dict[str, Look]) -> list[tuple[Look, pd.DataFrame]]:
    """The rows of each method with its look, in the order of the legend, without the whole training set."""
    distilled = _distilled(rows)
    by_method = {name: distilled[distilled["method"] == name] for name in look}
    return [(look[name], group) for name, group in by_method.items() if len(group)]


def draw_intervals(axes: Axes, x: pd.Series, rows: pd.DataFrame, style: Look) -> None:
    """Draw the intervals of rows with `accuracy_mean`, `accuracy_ci_low` and `accuracy_ci_high` at `x`."""
    bar: dict[str, Any] = {"capsize": 2, "capthick": 0.8, "elinewidth": 0.8}
    axes.errorbar(x, 100 * rows["accuracy_mean"], yerr=_errors(rows), fmt="none", ecolor=style.colour, **bar)


def draw_markers(axes: Axes, x: pd.Series, rows: pd.DataFrame, style: Look) -> None:
    """Draw the marker of a method at each of its accuracies and `x`."""
    y = 100 * rows["accuracy_mean"]
    axes.plot(x, y, color=style.colour, linestyle="", zorder=3, **style.face)


def draw_course(axes: Axes, x: pd.Series, rows: pd.DataFrame, style: Look) -> None:
    """Draw accuracies in the course of something: markers with their intervals, joined by a line."""
    draw_intervals(axes, x, rows, style)
    axes.plot(x, 100 * rows["accuracy_mean"], color=style.colour, linewidth=0.8)
    draw_markers(axes, x, rows, style)


def draw_ticks(axes: Axes, values: Sequence[float]) -> None:
    """Set the ticks of the x axis to these values, as plain numbers."""
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.10g}"))


def log_axis(axes: Axes, values: pd.Series, room: float = 0.0) -> None:
    """Set a log scale for these values, with a few round numbers as ticks.

    Args:
        axes: What is drawn on.
        values: Those above 0 are inside the limits.
        room: The part of the axis that is kept free at its left end, for text; below 1.
    """
    drawn = values[values > 0]
    low, high = (drawn.min(), drawn.max()) if len(drawn) else (1.0, 10.0)
    margin = 1.6 if high / low > 3 else 1.15
    low, high = low / margin, high * margin
    low /= (high / low) ** (room / (1 - room))
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [m * 10.0**n for n in decades for m in digits if low <= m * 10.0**n <= high]
        if len(ticks) <= MOST_TICKS:
            break
    ticks = ticks[:: math.ceil(len(ticks) / MOST_TICKS) or 1]
    if len(ticks) < 2:  # a narrow range
        ticks = [t for t in MaxNLocator(MOST_TICKS - 1).tick_values(low, high) if low <= t <= high]
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    draw_ticks(axes, ticks)


def draw_legend(frame: pd.DataFrame, look: dict[str, Look], unmeasured: Collection[str] = ()) -> list[Line2D]:
    """Make the legend: the methods of the frame, those that do not compete at equal storage with a note.

    Args:
        frame: The rows that are drawn.
        look: Of each method, in the order of the legend.
        unmeasured: Methods without a point, which the legend says.
    """
    exempt = set(frame.loc[frame["exempt"], "method"])
    over = set(frame.loc[~frame["exempt"] & ~frame["within_budget"], "method"])
    present = set(frame["method"])
    handles = []
    for name, style in look.items():
        if name not in present:
            continue
        label = style.label + (" (whole set)" if name in exempt else " (over budget)" if name in over else "")
        label += " (not measured)" if name in unmeasured else ""
        shape = {"linestyle": style.dash, "linewidth": 1}
        handles.append(Line2D([], [], color=style.colour, label=label, **shape, **style.face))
    return handles


def arrange_panels(
    found: list[Panel],
    handles: list[Line2D],
    draw: Callable[[Axes, Panel], None],
    xlabel: str,
    ylabel: str = "test accuracy (%)",
) -> Figure:
    """Draw panels in a grid, with the legend to the right; a place without a panel stays empty.

    Each panel has its own scale. A single column is wrapped.

    Args:
        found: The panels.
        handles: The legend.
        draw: Draws one panel.
        xlabel: Of the figure.
        ylabel: Of the figure.

    Raises:
        TooMuchToDraw: There are more than `MOST_PANELS` panels or `MOST_NAMES` names.
    """
    limit_names(len(found), "panels", MOST_PANELS)
    limit_names(len(handles), "names in the legend", MOST_NAMES)
    if all(panel.column == 0 for panel in found):
        found = [replace(p, row=p.row // ABREAST, column=p.row % ABREAST) for p in found]
    n_rows, n_columns = 1 + max(p.row for p in found), 1 + max(p.column for p in found)
    lines = [line for handle in handles for line in str(handle.get_label()).splitlines()]
    inches = ALONE if len(found) == 1 else PANEL
    size = (
        n_columns * inches[0] + 0.8 + 0.075 * max(map(len, lines)),
        max(n_rows * inches[1], 0.19 * len(lines)) + 0.2 * (2 + xlabel.count("\n")),
    )
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.08))
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for panel in found:
        axes = grid[panel.row, panel.column]
        axes.set_axis_on()
        draw(axes, panel)
        axes.set_title(panel.title, fontsize="medium")
    figure.supxlabel(xlabel, fontsize="medium")
    figure.supylabel(ylabel, fontsize="medium")
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    return figure


def save_plot(draw: Callable[[], Figure], stem: Path) -> list[Path]:
    """Draw a figure and write it to STEM.png and STEM.svg, the same bytes for the same figure."""
    written = []
    with rc_context(cast(Any, PLOT_STYLE)):
        figure = draw()
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the layout is computed once, not again for each file
        for kind, metadata in PLOT_FORMATS.items():
            path = stem.with_suffix(f".{kind}")
            with replacing(path) as temporary:
                figure.savefig(temporary, format=kind, metadata=metadata)
            written.append(path)
    return written
