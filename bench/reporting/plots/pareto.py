"""Accuracy against seconds and against bytes, with the Pareto front."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from bench.reporting.plots.style import (
    PANEL_SIZE,
    Panel,
    arrange_panels,
    draw_ceiling,
    draw_legend,
    draw_points,
    log_axis,
    method_lines,
    method_looks,
    panel_by_ipc,
    panel_by_row,
    side_by_side_factor,
)
from bench.reporting.sections import RecordsView, Section

LEAST_SECONDS = 1e-3
FRONT: dict[str, Any] = {"color": "0.2", "linewidth": 0.7, "linestyle": "-"}
ALIKE = 1.1  # sizes with a lower ratio are drawn side by side
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


def _draw_front(axes: Axes, rivals: pd.DataFrame) -> None:
    """Draw rings around the points on the front, and steps above all others.

    Args:
        axes: With its limits set.
        rivals: Rows of the summary with their `cost`, and `x`, where they are drawn.
    """
    best = rivals[pareto_front(rivals["cost"], rivals["accuracy_mean"])].sort_values(["cost", "x"])
    y = 100 * best["accuracy_mean"]
    axes.plot(best["x"], y, linestyle="", zorder=4, **RING)
    # to the right end of the axes: what costs more and is no better is dominated
    ends = [*best["x"], axes.get_xlim()[1]], [*y, *y.iloc[-1:]]
    if len(best):
        axes.plot(*ends, drawstyle="steps-post", zorder=1, **FRONT)


def _side_by_side(size: pd.Series) -> pd.Series:
    """Where to draw sizes on a log axis: nearly equal ones beside each other, in order."""
    placed = size.sort_values(kind="stable")
    cluster = (placed.div(placed.shift()) > ALIKE).cumsum()
    together = placed.groupby(cluster)
    i, n = together.cumcount(), together.transform("size")
    return together.transform("mean") * [side_by_side_factor(*where) for where in zip(i, n, strict=True)]


def _figure(
    panels: list[Panel],
    summary: pd.DataFrame,
    cost: pd.Series,
    xlabel: str,
    place: Callable[[pd.Series], pd.Series],
    *,
    all_compete: bool,
) -> Figure:
    """Draw accuracy against cost.

    Args:
        panels: With the rows of the summary that each shows.
        summary: All rows, for the legend.
        cost: Of each row of the summary.
        xlabel: What the cost is.
        place: Where costs are drawn on the axis.
        all_compete: Methods over their budget may be on the front too.
    """
    look = method_looks(summary)
    drawn = cost[~summary["exempt"] & summary["ipc"].notna()]

    def draw(axes: Axes, panel: Panel) -> None:
        draw_ceiling(axes, panel.rows, look)
        rows = panel.rows[~panel.rows["exempt"] & panel.rows["ipc"].notna()]
        rows = rows.sort_values("method", key=lambda names: names.map(list(look).index))
        log_axis(axes, place(drawn))
        points = rows.assign(cost=cost[rows.index], x=place(cost[rows.index]))
        for style, group in method_lines(points, look):
            draw_points(axes, group["x"], group, style, "")
        _draw_front(axes, points if all_compete else points[points["within_budget"]])

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
    clipped = ", below 1 ms drawn at 1 ms" if (seconds[~summary["exempt"]] < LEAST_SECONDS).any() else ""
    label = f"seconds to prepare and distill (log scale{clipped})"
    return _figure(
        panel_by_ipc(summary),
        summary,
        seconds,
        label,
        place=lambda cost: cost.clip(lower=LEAST_SECONDS),
        all_compete=False,
    )


def accuracy_vs_bytes(summary: pd.DataFrame) -> Figure:
    """Draw accuracy against stored bytes, all ipc in one panel.

    Methods over their budget compete too, as size is the axis.
    """
    kib = summary["stored_bytes"] / 1024
    label = "KiB stored, all numbers at fp32 (log scale)\nsets of nearly one size stand side by side"
    return _figure(panel_by_row(summary), summary, kib, label, _side_by_side, all_compete=True)


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
