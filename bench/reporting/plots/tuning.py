"""The best accuracy on the hold-out against what a tuning has spent."""

from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.core.words import flop_unit
from bench.reporting.plots.style import Panel, arrange_panels, draw_legend, log_axis, method_looks


def best_so_far(course: pd.DataFrame, spent: Literal["trials", "operations"]) -> Figure:
    """Draw a line per method: the best whole distillation among its trials so far.

    Args:
        course: The frame of `tuning.tuning_course`.
        spent: What is drawn against.
    """
    course = course.assign(exempt=False, within_budget=True)
    look = method_looks(course)
    size, unit = flop_unit(course["operations"].max())
    x = course["trials"] if spent == "trials" else course["operations"] / size
    panels = [
        Panel(f"{dataset}, ipc {ipc}", 0, place, rows)
        for place, ((dataset, ipc), rows) in enumerate(course.groupby(["dataset", "ipc"]))
    ]

    def draw(axes: Axes, panel: Panel) -> None:
        for name, style in look.items():
            rows = panel.rows[(panel.rows["method"] == name) & panel.rows["best"].notna()]
            if len(rows):
                steps = {"drawstyle": "steps-post", "linewidth": 0.8, "color": style.colour}
                axes.plot(x[rows.index], 100 * rows["best"], **steps, **style.face)
        if spent == "trials":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            log_axis(axes, x[panel.rows.index])

    label = "trials" if spent == "trials" else f"operations of all trials so far ({unit}, log scale)"
    return arrange_panels(panels, draw_legend(course, look), draw, label, "best accuracy on the hold-out (%)")
