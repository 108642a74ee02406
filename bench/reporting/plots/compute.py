"""Accuracy against operations with the Pareto front, and integrated performance profiles."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.analysis.compute import WITHIN, profiles
from bench.core.words import flop_unit
from bench.reporting.plots.pareto import BESIDE, FRONT, RING, draw_beside, draw_front, pareto_front
from bench.reporting.plots.style import (
    Panel,
    arrange_panels,
    draw_ceiling,
    draw_course,
    draw_legend,
    log_axis,
    method_lines,
    method_looks,
    panel_by_ipc,
)
from bench.reporting.sections import RecordsView, Section

SHARE = f"share within x points of the best,\nmean over x from 0 to {100 * WITHIN:.0f} (%)"


def accuracy_vs_operations(course: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Draw a line per method over the operations of its sets, snapshots included.

    Args:
        course: The frame of `compute.compute_course`.
        summary: All cells, for the looks.
    """
    look = method_looks(summary)
    size, name = flop_unit(course["operations"].max())
    course = course.assign(cost=course["operations"] / size)
    drawn = course[~course["exempt"] & course["ipc"].notna()]
    free, start = (drawn["cost"] == 0).any(), drawn.loc[drawn["cost"] > 0, "cost"].min()

    def draw(axes: Axes, panel: Panel) -> None:
        rows = panel.rows[~panel.rows["exempt"] & panel.rows["ipc"].notna()].sort_values("fraction")
        draw_ceiling(axes, panel.rows[panel.rows["fraction"] == 1], look)
        log_axis(axes, drawn["cost"], 1.5 * BESIDE if free else 0.0)
        for style, group in method_lines(rows[rows["cost"] > 0], look):
            for _, way in group.groupby("distill_arch"):
                draw_course(axes, way["cost"], way.sort_values("cost"), style)
        if (rows["cost"] == 0).any():
            draw_beside(axes, rows[rows["cost"] == 0], look)
        axes.set_ylim(*axes.get_ylim())
        fair = rows[rows["within_budget"]]
        best = fair[pareto_front(fair["cost"], fair["accuracy_mean"])]
        draw_front(axes, best, start)

    note = "\nIn the grey strip: no operations." if free else ""
    front = Line2D([], [], label="Pareto front (of the means)", **FRONT, **RING)
    label = f"operations to prepare and distill ({name}, log scale){note}"
    return arrange_panels(panel_by_ipc(course), [*draw_legend(drawn, look), front], draw, label)


def performance_profiles(profile: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Draw integrated performance profiles against operations, a panel for each protocol.

    Args:
        profile: The frame of `compute.profiles`.
        summary: All cells, for the looks.
    """
    look = method_looks(summary)
    size, name = flop_unit(profile["operations"].max())
    spent = profile["operations"] / size
    by_protocol = enumerate(profile.groupby("protocol"))
    panels = [Panel(f"protocol {protocol}", 0, i, rows) for i, (protocol, rows) in by_protocol]

    def draw(axes: Axes, panel: Panel) -> None:
        log_axis(axes, spent)
        left, right = axes.get_xlim()
        groups = {str(method): group for method, group in panel.rows.groupby("method")}
        for style, group in ((look[name], groups[name]) for name in look if name in groups):
            x, y = spent[group.index].clip(lower=left), 100 * group["share"]  # at the left end: no operations
            line = {"color": style.colour, "zorder": 2}
            axes.plot([x.iloc[0], *x, right], [0, *y, y.iloc[-1]], drawstyle="steps-post", **line)
            axes.plot(x, y, linestyle="", clip_on=False, **line | {"zorder": 3}, **style.face)
        axes.set_ylim(-3, 103)

    handles = draw_legend(profile.assign(exempt=False, within_budget=True), look)
    free = "\nat the left end: none" if (spent == 0).any() else ""
    label = f"operations to prepare and distill ({name}, log scale){free}"
    return arrange_panels(panels, handles, draw, label, SHARE)


def compute_section(view: RecordsView) -> Section | None:
    """Accuracy against operations, where they were counted."""
    course = view.compute
    if not len(course) or not (course["operations"] > 0).any():
        return None
    return Section(
        "compute",
        course,
        plots={"accuracy_vs_operations": lambda: accuracy_vs_operations(course, view.summary)},
    )


def profile_section(view: RecordsView) -> Section | None:
    """Integrated performance profiles, where operations of several methods were counted."""
    profile = profiles(view.compute)
    if not len(profile) or not (profile["operations"] > 0).any():
        return None
    plots = {"performance_profiles": lambda: performance_profiles(profile, view.summary)}
    return Section("performance_profiles", profile, plots=plots)
