"""Accuracy in the course of the students' training, and of the distillation (from its snapshots)."""

from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.plots.style import (
    Look,
    Panel,
    arrange_panels,
    draw_legend,
    draw_points,
    log_axis,
    method_lines,
    method_looks,
    panel_by_ipc,
)
from bench.report.sections import RecordsView, Section


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

    return arrange_panels(
        panel_by_ipc(curve), draw_legend(curve, look), draw, "part of the students' training (%)"
    )


def accuracy_vs_progress(
    progress: pd.DataFrame, spent: pd.Series, look: dict[str, Look], xlabel: str
) -> Figure:
    """A line per method over what its distillation had `spent` by each of the rows, its snapshots."""

    def draw(axes: Axes, panel: Panel) -> None:
        rows = panel.rows.sort_values("fraction")
        for style, group in method_lines(rows, look):
            draw_points(axes, spent[group.index], group, style, "-")
        log_axis(axes, spent)

    return arrange_panels(panel_by_ipc(progress), draw_legend(progress, look), draw, xlabel)


def training_curve_section(view: RecordsView) -> Section | None:
    ends = view.curve
    plot = {"curve": lambda: accuracy_vs_training(ends, method_looks(view.summary))}
    return Section("curve", ends, plots=plot) if len(ends) else None


def distillation_curve_section(view: RecordsView) -> Section | None:
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
        f"progress_{unit}": partial(accuracy_vs_progress, progress, of, method_looks(view.summary), label)
        for unit, (of, label) in spent.items()
    }
    return Section("progress", progress, plots=dict(plots))
