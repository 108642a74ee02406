"""Accuracy in the course of the students' training, and of the distillation from its snapshots."""

from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.analysis.devices import several_devices
from bench.reporting.plots.seconds import SIDE_BY_SIDE
from bench.reporting.plots.style import (
    Look,
    Panel,
    arrange_panels,
    draw_course,
    draw_legend,
    log_axis,
    method_lines,
    method_looks,
    panel_by_ipc,
)
from bench.reporting.sections import RecordsView, Section


def accuracy_vs_training(curve: pd.DataFrame, look: dict[str, Look]) -> Figure:
    """Draw a line per method with its intervals over the part of the optimiser's steps.

    Args:
        curve: The frame of `aggregate.training_course`.
        look: Of each method.
    """

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
            draw_course(axes, 100 * group["fraction"], group, style)
        axes.set_xlim(0, 104)

    return arrange_panels(
        panel_by_ipc(curve), draw_legend(curve, look), draw, "part of the students' training (%)"
    )


def accuracy_vs_progress(
    progress: pd.DataFrame, spent: pd.Series, look: dict[str, Look], xlabel: str
) -> Figure:
    """Draw a line per method over the steps or seconds of its distillation.

    Args:
        progress: The frame of `aggregate.distillation_course`.
        spent: The steps or seconds up to each row of it.
        look: Of each method.
        xlabel: What is spent.
    """

    def draw(axes: Axes, panel: Panel) -> None:
        rows = panel.rows.sort_values("fraction")
        for style, group in method_lines(rows, look):
            draw_course(axes, spent[group.index], group, style)
        log_axis(axes, spent)

    return arrange_panels(panel_by_ipc(progress), draw_legend(progress, look), draw, xlabel)


def training_curve_section(view: RecordsView) -> Section | None:
    """Accuracy in the course of the students' training, where the records hold curves."""
    curve = view.curve
    plot = {"curve": lambda: accuracy_vs_training(curve, method_looks(view.summary))}
    return Section("curve", curve, plots=plot) if len(curve) else None


def distillation_curve_section(view: RecordsView) -> Section | None:
    """Accuracy in the course of the distillation, where snapshots were scored."""
    progress = view.progress
    if not len(progress):
        return None
    alone = view.summary["exclusive"].all()
    notes = [*([] if alone else [SIDE_BY_SIDE]), *several_devices(view.summary["device"])]
    spent = {
        "steps": (progress["step"].astype(float), "steps of the distillation (log scale)"),
        "seconds": (
            progress["prepare_s"] + progress["distill_s"],
            "\n".join(["seconds to prepare and distill so far (log scale)", *notes]),
        ),
    }
    plots = {
        f"progress_{unit}": partial(accuracy_vs_progress, progress, of, method_looks(view.summary), label)
        for unit, (of, label) in spent.items()
    }
    return Section("progress", progress, plots=dict(plots))
