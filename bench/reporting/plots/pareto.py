"""Accuracy against seconds and against bytes, with the Pareto front."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from bench.analysis.devices import several_devices
from bench.reporting.method_names import SEPARATOR, wrapped
from bench.reporting.plots.seconds import SIDE_BY_SIDE
from bench.reporting.plots.style import (
    ALONE,
    PANEL,
    PANEL_SIZE,
    Look,
    Panel,
    accuracy_floor,
    arrange_panels,
    draw_ceiling,
    draw_intervals,
    draw_legend,
    draw_markers,
    draw_ticks,
    log_axis,
    method_lines,
    method_looks,
    panel_by_ipc,
    panel_by_row,
)
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables.table import frame_rows, short_number

QUICK_S = 0.1  # only sets that take less may be drawn beside the axis
GAP = 30.0  # how many times more the next set takes, for the axis to begin there
BESIDE = 0.05  # part of the axes, at the left, that the sets beside the axis have
SHORT = 24  # letters of a line of a direct label
LETTER = 0.052  # inches of a letter of a direct label
LETTER_HEIGHT = 0.13  # inches of a line of one
LABEL: dict[str, Any] = {
    "fontsize": 7,
    "zorder": 5,
    "bbox": {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.5},
}
FRONT: dict[str, Any] = {"color": "0.2", "linewidth": 0.7, "linestyle": "-"}
RING: dict[str, Any] = {
    "marker": "o",
    "markersize": PANEL_SIZE + 4.5,
    "markerfacecolor": "none",
    "markeredgecolor": "0.2",
    "markeredgewidth": 0.9,
}


def pareto_front(cost: ArrayLike, accuracy: ArrayLike) -> NDArray[np.bool_]:
    """Mark the points that no other one dominates, being at least as good in both and better in one.

    Args:
        cost: [N], lower is better; a NaN is not on the front.
        accuracy: [N], higher is better.

    Returns:
        [N]; of equal points on the front all are marked.
    """
    c, a = np.asarray(cost, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    as_good = (c[None] <= c[:, None]) & (a[None] >= a[:, None])  # [i,j]: j is as good as i
    better = (c[None] < c[:, None]) | (a[None] > a[:, None])
    on: NDArray[np.bool_] = ~(as_good & better).any(axis=1) & ~np.isnan(c) & ~np.isnan(a)
    return on


def axis_start(cost: pd.Series) -> float:
    """Find where the axis of seconds begins: above the last wide gap after sets that took next to no time.

    A log axis from a millisecond to hours would press all other sets against its right end.

    Args:
        cost: [N], in seconds; NaN where unmeasured.

    Returns:
        The lowest cost that is drawn on the axis; 0 without such a gap.
    """
    gaps = [above for low, above in pairwise(sorted(cost.dropna())) if low < QUICK_S and above > GAP * low]
    return float(gaps[-1]) if gaps else 0.0


@dataclass(frozen=True)
class DirectLabel:
    """A text beside a point of a panel."""

    text: str
    x: float | None  # in the units of the axis: the text ends left of it; None: at the left end of the axes
    y: float  # percent


def _draw_labels(axes: Axes, labels: list[DirectLabel]) -> None:
    """Write labels above and left of their points, where a front leaves room; each above the one before.

    Args:
        axes: With its limits set; the upper one is raised where labels need it.
        labels: What is written.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    line = LETTER_HEIGHT * figure.dpi / axes.get_window_extent().height
    ordered = sorted(labels, key=lambda one: (one.y, one.x or 0))
    places: list[float] = []
    for _ in range(20):
        (low, high), free, places = axes.get_ylim(), 0.01, []
        for label in ordered:
            places.append(max((label.y - low) / (high - low) + 0.02, free))
            free = places[-1] + line * (1 + label.text.count("\n"))
        if free <= 1:
            break
        axes.set_ylim(low, high + 0.05 * (high - low))
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= min(high, 100)])
    for label, place in zip(ordered, places, strict=True):
        beside = label.x is None
        axes.annotate(
            label.text,
            (BESIDE if beside else label.x, place),
            xycoords=axes.transAxes if beside else axes.get_xaxis_transform(),
            xytext=(2 if beside else -4, 0),
            textcoords="offset points",
            ha="left" if beside else "right",
            va="bottom",
            **LABEL,
        )


def draw_beside(axes: Axes, rows: pd.DataFrame, look: dict[str, Look]) -> None:
    """Draw sets that are quicker than the axis shows in a grey strip at its left end."""
    strip = Rectangle((0, 0), BESIDE, 1, transform=axes.transAxes, facecolor="0.9", linewidth=0, zorder=0.5)
    axes.add_artist(strip)  # not add_patch, which would move the limits
    left, right = np.log(axes.get_xlim())
    free = np.exp(left + 1.5 * BESIDE * (right - left))
    draw_ticks(axes, [tick for tick in axes.get_xticks() if tick > free])
    for style, group in method_lines(rows, look):
        for row in frame_rows(group):
            at: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "color": style.colour}
            ends = [100 * row["accuracy_ci_low"], 100 * row["accuracy_ci_high"]]
            axes.plot([BESIDE / 2] * 2, ends, linewidth=0.8, **at)
            axes.plot([BESIDE / 2], [100 * row["accuracy_mean"]], linestyle="", zorder=3, **at, **style.face)


def draw_front(axes: Axes, best: pd.DataFrame, start: float) -> None:
    """Draw rings around the points on the front, and steps above all others.

    Args:
        axes: With its limits set.
        best: The rows of the summary that are on the front, with their `cost`.
        start: The lowest cost on the axis.
    """
    if best.empty:
        return
    best = best.sort_values("cost", kind="stable")
    on = best[(best["cost"] >= start) & (100 * best["accuracy_mean"] >= axes.get_ylim()[0])]
    axes.plot(on["cost"], 100 * on["accuracy_mean"], linestyle="", zorder=4, **RING)
    left, right = axes.get_xlim()
    # to the right end of the axes: what costs more and is no better is dominated
    x, y = [*best["cost"].clip(lower=left), right], 100 * best["accuracy_mean"]
    axes.plot(x, [*y, y.iloc[-1]], drawstyle="steps-post", zorder=1, **FRONT)


def _labels(
    rows: pd.DataFrame, best: pd.DataFrame, start: float, floor: float, look: dict[str, Look]
) -> list[DirectLabel]:
    """The names of the sets on the front, and of those that are not on the axes, with their numbers."""
    found: list[DirectLabel] = []
    several = rows["ipc"].nunique() > 1
    for row, on in zip(frame_rows(rows), rows.index.isin(best.index), strict=True):
        name, y = look[row["method"]].label, 100 * float(row["accuracy_mean"])
        seconds = f", {short_number(row['cost'])} s" if row["cost"] < start else ""
        if y < 100 * floor:
            ipc = f", ipc {row['ipc']}" if several else ""
            found.append(DirectLabel(f"↓ {name}{ipc}{seconds}: {y:.1f} %", None, y))
        elif seconds:
            found.append(DirectLabel(name + seconds, None, y))
        elif on:
            parts = name.replace("\n", SEPARATOR).split(SEPARATOR)
            found.append(DirectLabel(wrapped(parts, SHORT), float(row["cost"]), y))
    return found


def _room(labels: list[list[DirectLabel]], inches: float) -> float:
    """The part of the axis that the longest label needs."""
    longest = max(
        (len(line) for found in labels for one in found for line in one.text.splitlines()), default=0
    )
    return min(0.6, BESIDE + LETTER * longest / inches)


def _front(rows: pd.DataFrame, *, of_bytes: bool) -> pd.DataFrame:
    """The rows on the front; of seconds of several devices there is none."""
    if not of_bytes and several_devices(rows["device"]):
        return rows[:0]
    rivals = rows if of_bytes else rows[rows["within_budget"]]
    return rivals[pareto_front(rivals["cost"], rivals["accuracy_mean"])]


def _figure(
    panels: list[Panel],
    summary: pd.DataFrame,
    cost: pd.Series,
    xlabel: str,
    start: float,
    *,
    of_bytes: bool,
    intervals: bool,
) -> Figure:
    """Draw accuracy against cost, each point where it is on the axis.

    Args:
        panels: With the rows of the summary that each shows.
        summary: All rows, for the legend.
        cost: Of each row of the summary.
        xlabel: What the cost is.
        start: Sets of a lower cost are drawn beside the axis.
        of_bytes: Methods over their budget may be on the front too; not of seconds, which devices part.
        intervals: Of all points; else of those on the front alone.
    """
    look = method_looks(summary)
    drawn = cost[~summary["exempt"] & summary["ipc"].notna()]
    inches = ALONE if len(panels) == 1 else PANEL

    def parts(panel: Panel) -> tuple[pd.DataFrame, pd.DataFrame, list[DirectLabel]]:
        """The distilled sets of a panel that are drawn, those on the front, and the labels."""
        rows = panel.rows[~panel.rows["exempt"] & panel.rows["ipc"].notna()]
        rows = rows.assign(cost=cost[rows.index])
        best, floor = _front(rows, of_bytes=of_bytes), accuracy_floor(panel.rows)
        return rows[rows["accuracy_mean"] >= floor], best, _labels(rows, best, start, floor, look)

    room = _room([parts(panel)[2] for panel in panels], 0.8 * inches[0])

    def draw(axes: Axes, panel: Panel) -> None:
        rows, best, labels = parts(panel)
        draw_ceiling(axes, panel.rows, look)
        log_axis(axes, drawn[drawn >= start], room)
        for style, group in method_lines(rows[rows["cost"] >= start], look):
            bars = group if intervals else group[group.index.isin(best.index)]
            draw_intervals(axes, bars["cost"], bars, style)
            draw_markers(axes, group["cost"], group, style)
        if (quick := rows["cost"] < start).any():
            draw_beside(axes, rows[quick], look)
        axes.set_ylim(*axes.get_ylim())  # what follows fits in
        draw_front(axes, best, start)
        _draw_labels(axes, labels)

    distilled = summary.loc[~summary["exempt"], "method"]
    unmeasured = set(distilled) - set(distilled[cost[distilled.index].notna()])
    return arrange_panels(
        panels,
        [
            *draw_legend(summary, look, unmeasured),
            Line2D([], [], label="Pareto front (of the means)", **FRONT, **RING),
        ],
        draw,
        xlabel,
    )


def accuracy_vs_seconds(summary: pd.DataFrame) -> Figure:
    """Draw accuracy against seconds to prepare and distill.

    A panel for each ipc: sets of one size compete, those that fit their budget.
    """
    seconds = summary["prepare_s"] + summary["distill_s"]
    start = axis_start(seconds[~summary["exempt"] & summary["ipc"].notna()])
    notes = ["In the grey strip: quicker than the axis shows."] if start else []
    notes += [] if summary["exclusive"].all() else [SIDE_BY_SIDE]
    notes += [f"{note} No front is drawn over several." for note in several_devices(summary["device"])]
    label = "\n".join(["seconds to prepare and distill (log scale)", *notes])
    return _figure(panel_by_ipc(summary), summary, seconds, label, start, of_bytes=False, intervals=True)


def accuracy_vs_bytes(summary: pd.DataFrame) -> Figure:
    """Draw accuracy against stored bytes, all ipc in one panel.

    Methods over their budget compete too, as size is the axis. Many sets have the same size, so intervals of
    all of them would hide each other.
    """
    kib = summary["stored_bytes"] / 1024
    certain = summary.loc[~summary["exempt"], "accuracy_ci_low"].notna().any()
    note = "\nbars: 95 % interval over seeds, on the front only" if certain else ""
    label = f"KiB stored, all numbers at fp32 (log scale){note}"
    return _figure(panel_by_row(summary), summary, kib, label, 0.0, of_bytes=True, intervals=False)


def pareto_section(view: RecordsView) -> Section:
    """Accuracy against seconds and against bytes, from the same rows as the summary table."""
    summary = view.summary
    return Section(
        "pareto",
        plots={
            "accuracy_vs_seconds": lambda: accuracy_vs_seconds(summary),
            "accuracy_vs_bytes": lambda: accuracy_vs_bytes(summary),
        },
    )
