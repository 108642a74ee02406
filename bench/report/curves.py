"""Accuracy in the course of the students' training, and of the distillation (from its snapshots)."""

from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.exhibit import Exhibit, View
from bench.report.plots import (
    Look,
    Panel,
    arrange,
    by_ipc,
    draw_points,
    legend,
    log_axis,
    looks,
    method_lines,
)


def accuracy_vs_training(curve: pd.DataFrame, look: dict[str, Look]) -> Figure:
    """A line per method with its bootstrap intervals, over the part of the optimiser's steps."""

    def draw(axes: Axes, panel: Panel) -> None:
        rows = panel.rows.sort_values("fraction")
        for method, group in rows[rows["exempt"]].groupby("method"):
            style = look[str(method)]
            axes.plot(
                100 * group["fraction"],
                100 * group["accuracy_mean"],
                color=style.colour,
                linestyle=style.dash,
                linewidth=1.2,
            )
        for style, group in method_lines(rows, look):
            draw_points(axes, 100 * group["fraction"], group, style, "-")
        axes.set_xlim(0, 104)

    return arrange(by_ipc(curve), legend(curve, look), draw, "part of the students' training (%)")


def accuracy_vs_progress(
    progress: pd.DataFrame, spent: pd.Series, look: dict[str, Look], xlabel: str
) -> Figure:
    """A line per method over what its distillation had `spent` by each of the rows, its snapshots."""

    def draw(axes: Axes, panel: Panel) -> None:
        rows = panel.rows.sort_values("fraction")
        for style, group in method_lines(rows, look):
            draw_points(axes, spent[group.index], group, style, "-")
        log_axis(axes, spent)

    return arrange(by_ipc(progress), legend(progress, look), draw, xlabel)


def exhibit(view: View) -> Exhibit | None:
    ends = view.curve
    plot = {"curve": lambda: accuracy_vs_training(ends, looks(view.summary))}
    return Exhibit("curve", ends, plots=plot) if len(ends) else None


def exhibit_progress(view: View) -> Exhibit | None:
    """What the sets were worth after parts of their distillation, where snapshots were scored."""
    progress = view.progress
    if not len(progress):
        return None
    spent = {
        "steps": (progress["step"].astype(float), "steps of the distillation (log scale)"),
        "seconds": (
            progress["prepare_s"] + progress["distill_s"],
            "seconds to prepare and distil so far (log scale)",
        ),
    }
    plots = {
        f"progress_{unit}": partial(accuracy_vs_progress, progress, of, looks(view.summary), label)
        for unit, (of, label) in spent.items()
    }
    return Exhibit("progress", progress, plots=dict(plots))
