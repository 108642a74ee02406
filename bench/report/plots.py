"""Accuracy against ipc and against seconds. A method has one colour and one marker in every plot."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
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
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from bench.files import replacing

MARKERS = "osD^vP*X<>pHd"  # 13 and 10 colours: 130 pairs before one comes twice
DASHES = ["--", ":", "-.", (0, (5, 1, 1, 1, 1, 1))]
LEAST_SECONDS = 1e-3
PANEL = (2.7, 2.4)  # inches
MOST_TICKS = 5
MOST_PANELS = 100  # of one figure; more are neither read nor drawn in a minute

STYLE: dict[str, Any] = {
    **sns.axes_style("whitegrid"),
    **sns.plotting_context("paper"),
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same
    "svg.hashsalt": "ddbench",
    "axes.linewidth": 0.8,
    "grid.linewidth": 0.5,
    "savefig.dpi": 200,
}


class TooMuch(Exception):
    """More than one figure can show; says what."""


@dataclass(frozen=True)
class Look:
    colour: Any
    marker: str
    dash: Any


@dataclass(frozen=True)
class Panel:
    """The rows of a summary that are drawn into one pair of axes."""

    title: str
    row: int
    column: int
    rows: pd.DataFrame


# --- what goes where ----------------------------------------------------------------------------------------


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key under which steps=100 comes before steps=1000."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def looks(summary: pd.DataFrame) -> dict[str, Look]:
    """By method, in the order of the legend: from all methods of the summary, so the same in every plot."""
    colours = sns.color_palette("colorblind")
    exempt = sorted(summary.loc[summary["exempt"], "method"].unique(), key=natural)
    distilled = sorted(set(summary["method"]) - set(exempt), key=natural)
    found = {
        method: Look(colours[i % len(colours)], MARKERS[i % len(MARKERS)], "-")
        for i, method in enumerate(distilled)
    }
    ceilings = {method: Look("0.25", "", DASHES[i % len(DASHES)]) for i, method in enumerate(exempt)}
    return found | ceilings


def panels(summary: pd.DataFrame) -> list[Panel]:
    """A row per dataset, protocol and distillation architecture, a column per evaluation architecture.

    What needs no network to distil ("any") is drawn next to every distillation architecture.
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


def _errors(rows: pd.DataFrame) -> NDArray[np.float64]:
    """Distances to the ends of the interval in percent, for `errorbar`; nothing where none is claimed."""
    low = rows["accuracy_mean"] - rows["accuracy_ci_low"]
    high = rows["accuracy_ci_high"] - rows["accuracy_mean"]
    return np.array([low, high], dtype=np.float64).clip(min=0) * 100


def ipcs_in(rows: pd.DataFrame) -> list[int]:
    return sorted(int(ipc) for ipc in rows["ipc"].dropna().unique())


# --- drawing ------------------------------------------------------------------------------------------------


def _ceiling(axes: Axes, rows: pd.DataFrame, look: dict[str, Look]) -> None:
    """What no budget applies to, as lines across."""
    for method, group in rows[rows["exempt"]].groupby("method"):
        style = look[str(method)]
        level = 100 * group["accuracy_mean"].mean()
        axes.axhline(level, color=style.colour, linestyle=style.dash, linewidth=1.2, zorder=1)


def _distilled(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[~rows["exempt"] & rows["ipc"].notna()].sort_values("ipc")


def method_lines(rows: pd.DataFrame, look: dict[str, Look]) -> list[tuple[Look, pd.DataFrame]]:
    """The points of each method, in the order of the legend."""
    distilled = _distilled(rows)
    by_method = {name: distilled[distilled["method"] == name] for name in look}
    return [(look[name], group) for name, group in by_method.items() if len(group)]


def draw_points(
    axes: Axes, x: pd.Series, rows: pd.DataFrame, style: Look, sizes: list[float], line: str
) -> None:
    """Markers on a line, each with its interval."""
    y = 100 * rows["accuracy_mean"]
    bar: dict[str, Any] = {"capsize": 2, "capthick": 0.8, "elinewidth": 0.8}
    axes.errorbar(x, y, yerr=_errors(rows), fmt="none", ecolor=style.colour, **bar)
    axes.plot(x, y, color=style.colour, linestyle=line, linewidth=0.8)
    point: dict[str, Any] = {"marker": style.marker, "edgecolor": "white", "linewidth": 0.3, "zorder": 3}
    axes.scatter(x, y, s=np.square(sizes), color=style.colour, **point)


def _against_ipc(axes: Axes, rows: pd.DataFrame, look: dict[str, Look]) -> None:
    lines = method_lines(rows, look)
    for i, (style, group) in enumerate(lines):
        aside = 1.04 ** (i - (len(lines) - 1) / 2)  # so that intervals at one ipc stand side by side
        draw_points(axes, group["ipc"].astype(float) * aside, group, style, [4.5] * len(group), "-")


def _ipc_axis(axes: Axes, ipcs: list[int]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(min(ipcs, default=1) / 1.6, max(ipcs, default=1) * 1.6)
    axes.xaxis.set_major_locator(FixedLocator(ipcs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))


def _sizes(ipcs: list[int]) -> dict[int, float]:
    """Marker sizes by ipc, told apart by rank: areas in proportion would make 1 beside 50 a speck."""
    return dict(zip(ipcs, np.linspace(4, 8.5, len(ipcs)), strict=True))


def _seconds(rows: pd.DataFrame) -> pd.Series:
    return rows["prepare_s"] + rows["distill_s"]


def _against_seconds(axes: Axes, rows: pd.DataFrame, look: dict[str, Look], sizes: dict[int, float]) -> None:
    for style, group in method_lines(rows, look):
        drawn = _seconds(group).clip(lower=LEAST_SECONDS)
        draw_points(axes, drawn, group, style, [sizes[int(ipc)] for ipc in group["ipc"]], ":")


def _seconds_axis(axes: Axes, seconds: pd.Series) -> None:
    """Whole decades around all points of the figure, in plain numbers."""
    drawn = np.log10(seconds.clip(lower=LEAST_SECONDS))
    low = math.floor(drawn.min()) if len(drawn) else 0
    high = max(low + 1, math.ceil(drawn.max()) if len(drawn) else 0)
    ticks = [10.0**n for n in range(low, high + 1, math.ceil((high - low + 1) / MOST_TICKS))]
    clipped = bool((seconds < LEAST_SECONDS).any())

    def text(value: float, _: int) -> str:
        return "≤0.001" if clipped and value <= LEAST_SECONDS else f"{value:g}"

    axes.set_xscale("log")
    axes.set_xlim(10 ** (low - 0.3), 10 ** (high + 0.3))
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(text))


def legend(summary: pd.DataFrame) -> list[Line2D]:
    """Every method, and what makes it no comparison at equal storage."""
    exempt = set(summary.loc[summary["exempt"], "method"])
    over = set(summary.loc[~summary["exempt"] & ~summary["within_budget"], "method"])
    handles = []
    for name, style in looks(summary).items():
        label = name + (" (whole set)" if name in exempt else " (over budget)" if name in over else "")
        shape = {"marker": style.marker, "markersize": 5, "linestyle": style.dash, "linewidth": 1}
        handles.append(Line2D([], [], color=style.colour, label=label, **shape))
    return handles


def arrange(
    found: list[Panel], handles: list[Line2D], draw: Callable[[Axes, Panel], None], xlabel: str
) -> Figure:
    """All panels in a grid, the legend to its right; a combination without records stays empty.

    Raises TooMuch.
    """
    if len(found) > MOST_PANELS:
        raise TooMuch(f"{len(found)} panels, at most {MOST_PANELS} are drawn")
    n_rows, n_columns = 1 + max(p.row for p in found), 1 + max(p.column for p in found)
    beside = 0.8 + 0.075 * max(len(str(handle.get_label())) for handle in handles)
    height = max(n_rows * PANEL[1], 0.19 * len(handles)) + 0.3
    size = (n_columns * PANEL[0] + beside, height)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.08))
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey="row")
    for axes in grid.flat:
        axes.set_axis_off()
    labelled: set[int] = set()  # rows whose first panel has been drawn
    for panel in sorted(found, key=lambda p: (p.row, p.column)):
        axes = grid[panel.row, panel.column]
        axes.set_axis_on()
        draw(axes, panel)
        axes.set_title(panel.title, fontsize="medium")
        axes.tick_params(labelleft=panel.row not in labelled)
        labelled.add(panel.row)
    figure.supxlabel(xlabel, fontsize="medium")
    figure.supylabel("test accuracy (%)", fontsize="medium")
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    return figure


def accuracy_vs_ipc(summary: pd.DataFrame) -> Figure:
    """A line per method with its bootstrap intervals."""
    look = looks(summary)

    def draw(axes: Axes, panel: Panel) -> None:
        _ceiling(axes, panel.rows, look)
        _against_ipc(axes, panel.rows, look)
        _ipc_axis(axes, ipcs_in(panel.rows))

    return arrange(panels(summary), legend(summary), draw, "images per class (log scale)")


def accuracy_vs_seconds(summary: pd.DataFrame) -> Figure:
    """A point per method and ipc: what its accuracy cost, prerequisites included."""
    look, sizes = looks(summary), _sizes(ipcs_in(summary))
    seconds = _seconds(_distilled(summary)).dropna()

    def draw(axes: Axes, panel: Panel) -> None:
        _ceiling(axes, panel.rows, look)
        _against_seconds(axes, panel.rows, look, sizes)
        _seconds_axis(axes, seconds)

    clipped = "; below 1 ms drawn at 1 ms" if (seconds < LEAST_SECONDS).any() else ""
    label = f"seconds to prepare and distil\n(log scale{clipped})"
    further = [
        Line2D([], [], color="0.4", marker="o", linestyle="", markersize=size, label=f"ipc {ipc}")
        for ipc, size in sizes.items()
    ]
    blank = Line2D([], [], linestyle="", label=" ")
    handles = legend(summary) + ([blank, *further] if further else [])
    return arrange(panels(summary), handles, draw, label)


def save(draw: Callable[[], Figure], stem: Path) -> list[Path]:
    """Draw and write `stem.png` and `stem.svg`, the same bytes for the same figure."""
    written = []
    with rc_context(cast(Any, STYLE)):
        figure = draw()
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once; again for each file would double the time
        for kind, metadata in {"png": {"Software": None}, "svg": {"Date": None}}.items():
            path = stem.with_suffix(f".{kind}")
            with replacing(path) as temporary:
                figure.savefig(temporary, format=kind, metadata=metadata)
            written.append(path)
    return written
