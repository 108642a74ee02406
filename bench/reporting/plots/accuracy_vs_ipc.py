"""Accuracy against images per class."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.reporting.plots.style import (
    Look,
    Panel,
    arrange_panels,
    draw_ceiling,
    draw_legend,
    draw_points,
    draw_ticks,
    ipcs_in,
    make_panels,
    method_lines,
    method_looks,
    side_by_side_factor,
)


def _against_ipc(axes: Axes, rows: pd.DataFrame, look: dict[str, Look]) -> None:
    lines = method_lines(rows, look)
    for i, (style, group) in enumerate(lines):
        draw_points(axes, group["ipc"].astype(float) * side_by_side_factor(i, len(lines)), group, style, "-")


def _ipc_axis(axes: Axes, ipcs: list[int]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(min(ipcs, default=1) / 1.6, max(ipcs, default=1) * 1.6)
    draw_ticks(axes, ipcs)


def accuracy_vs_ipc(summary: pd.DataFrame) -> Figure:
    """Draw a line per method with its intervals, from the frame of `aggregate.summary_frame`."""
    look = method_looks(summary)

    def draw(axes: Axes, panel: Panel) -> None:
        draw_ceiling(axes, panel.rows, look)
        _against_ipc(axes, panel.rows, look)
        _ipc_axis(axes, ipcs_in(panel.rows))

    return arrange_panels(
        make_panels(summary), draw_legend(summary, look), draw, "images per class (log scale)"
    )
