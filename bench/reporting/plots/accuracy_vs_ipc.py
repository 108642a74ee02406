"""Accuracy at each number of images per class: a dot and its interval for each method, the best on top."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from bench.analysis.dd_ranking import RANDOM_IMAGES
from bench.reporting.plots.style import (
    MOST_PANELS,
    Look,
    Panel,
    accuracy_floor,
    draw_ceiling,
    ipcs_in,
    limit_names,
    make_panels,
    method_looks,
)
from bench.reporting.tables.table import budget_mark, frame_rows, mark_notes

WIDTH = 2.5  # inches of a panel, without the names
LINE, HEAD = 0.165, 0.75  # inches of a line of names, and above and below a panel
MOST_LINES = 800
RANDOM: dict[str, Any] = {"color": "0.25", "linestyle": ":", "linewidth": 1.2}
INTERVAL: dict[str, Any] = {"color": "0.9", "linewidth": 0}  # of random images


def _panels(summary: pd.DataFrame) -> list[Panel]:
    """A row for each pair of architectures, a column for each ipc; the whole training set is in each."""
    ipcs = ipcs_in(summary)
    return [
        Panel(
            panel.title.replace("\n", f", ipc {ipc}\n"),
            row,
            ipcs.index(ipc),
            panel.rows[panel.rows["ipc"].isna() | (panel.rows["ipc"] == ipc)],
        )
        for row, panel in enumerate(sorted(make_panels(summary), key=lambda one: (one.row, one.column)))
        for ipc in ipcs_in(panel.rows)
    ]


def sorted_methods(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that are compared, the best first; random images are a line unless there is nothing else."""
    distilled = rows[~rows["exempt"]].sort_values(["accuracy_mean", "method"], ascending=[False, True])
    others = distilled[distilled["method"] != RANDOM_IMAGES]
    return others if len(others) else distilled


def _draw(axes: Axes, rows: pd.DataFrame, look: dict[str, Look]) -> None:
    shown = sorted_methods(rows)
    is_line = (rows["method"] == RANDOM_IMAGES) & ~rows.index.isin(shown.index)
    for row in frame_rows(rows[is_line]):
        axes.axvline(100 * row["accuracy_mean"], zorder=1, **RANDOM)
        axes.axvspan(100 * row["accuracy_ci_low"], 100 * row["accuracy_ci_high"], zorder=0, **INTERVAL)
    draw_ceiling(axes, rows, look, vertical=True)
    floor = accuracy_floor(rows)
    for y, row in enumerate(frame_rows(shown)):
        style = look[str(row["method"])]
        if row["accuracy_mean"] < floor:
            below: dict[str, Any] = {
                "transform": axes.get_yaxis_transform(),
                "va": "center",
                "fontsize": "small",
            }
            axes.text(0.02, y, f"← {100 * row['accuracy_mean']:.1f}", color=style.colour, **below)
            continue
        ends = [100 * row["accuracy_ci_low"], 100 * row["accuracy_ci_high"]]
        axes.plot(ends, [y, y], color=style.colour, linewidth=1, marker="|", markersize=5, zorder=2)
        axes.plot([100 * row["accuracy_mean"]], [y], color=style.colour, linestyle="", zorder=3, **style.face)
    axes.set_yticks(range(len(shown)), _names(shown, look))
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def _names(rows: pd.DataFrame, look: dict[str, Look]) -> list[str]:
    return [
        look[str(row["method"])].label + budget_mark(exempt=False, over_budget=not row["within_budget"])
        for row in frame_rows(rows)
    ]


def _legend(summary: pd.DataFrame, look: dict[str, Look]) -> list[Line2D]:
    """The lines of the whole training set and of random images."""
    exempt = list(dict.fromkeys(summary.loc[summary["exempt"], "method"]))
    lines = [
        Line2D([], [], color=look[name].colour, linestyle=look[name].dash, label=f"{name} (whole set)")
        for name in exempt
    ]
    if (summary["method"] == RANDOM_IMAGES).any():
        lines.append(Line2D([], [], label=f"{RANDOM_IMAGES} and its interval", **RANDOM))
    return lines


def accuracy_vs_ipc(summary: pd.DataFrame) -> Figure:
    """Draw a panel for each ipc and pair of architectures, with methods from the best to the worst.

    Random images and the whole training set are vertical lines.

    Args:
        summary: The frame of `aggregate.summary_frame`.

    Raises:
        TooMuchToDraw: There are more than `MOST_PANELS` panels or `MOST_LINES` lines of names.
    """
    look, found = method_looks(summary), _panels(summary)
    limit_names(len(found), "panels", MOST_PANELS)
    shown = [_names(sorted_methods(panel.rows), look) for panel in found]
    lines = [len(names) * max((1 + name.count("\n") for name in names), default=1) for names in shown]
    limit_names(sum(lines), "lines of names", MOST_LINES)
    n_rows, n_columns = 1 + max(p.row for p in found), 1 + max(p.column for p in found)
    tall = [max(n for n, p in zip(lines, found, strict=True) if p.row == row) for row in range(n_rows)]
    longest = max(len(line) for names in shown for name in names for line in name.splitlines())
    size = (n_columns * (WIDTH + 0.075 * longest), sum(HEAD + LINE * n for n in tall) + 0.7)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.08))
    grid = figure.subplots(n_rows, n_columns, squeeze=False, height_ratios=[n + 1 for n in tall])
    for axes in grid.flat:
        axes.set_axis_off()
    for panel in found:
        axes = grid[panel.row, panel.column]
        axes.set_axis_on()
        _draw(axes, panel.rows, look)
        axes.set_title(panel.title, fontsize="medium")
    intervals = "; bars: 95 % interval over seeds" if summary["accuracy_ci_low"].notna().any() else ""
    marks = [note for note in mark_notes(frame_rows(summary)) if not note.startswith("†")]
    figure.supxlabel("\n".join([f"test accuracy (%){intervals}", *marks]), fontsize="medium")
    if handles := _legend(summary, look):
        figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), frameon=False)
    return figure
