"""Accuracy in the course of the students' training, drawn from `aggregate.curve`, which has all of them."""

from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.exhibit import Exhibit, View
from bench.report.plots import Panel, arrange, draw_points, ipcs_in, legend, looks, method_lines, panels


def own(curve: pd.DataFrame) -> list[Panel]:
    """A panel for each row of the plots: on its distillation architecture, or on the first without that."""

    def rank(panel: Panel) -> tuple[bool, int]:
        return not (panel.rows["distill_arch"] == panel.rows["eval_arch"]).any(), panel.column

    found: dict[int, Panel] = {}
    for panel in sorted(panels(curve), key=rank):
        found.setdefault(panel.row, panel)
    return [found[row] for row in sorted(found)]


def by_ipc(curve: pd.DataFrame) -> list[Panel]:
    """A column for each ipc; the whole set is drawn into each."""
    whole = 0  # its own column, if there is nothing else
    ipcs = ipcs_in(curve) or [whole]
    return [
        replace(
            panel,
            title=panel.title + (f", ipc {ipc}" if ipc else ""),
            column=ipcs.index(ipc),
            rows=panel.rows[panel.rows["ipc"].isna() | (panel.rows["ipc"] == ipc)].sort_values("fraction"),
        )
        for panel in own(curve)
        for ipc in ipcs_in(panel.rows) or [whole]
    ]


def accuracy_vs_training(curve: pd.DataFrame) -> Figure:
    """A line per method with its bootstrap intervals, over the part of the optimiser's steps."""
    look = looks(curve)

    def draw(axes: Axes, panel: Panel) -> None:
        for method, group in panel.rows[panel.rows["exempt"]].groupby("method"):
            style = look[str(method)]
            axes.plot(
                100 * group["fraction"],
                100 * group["accuracy_mean"],
                color=style.colour,
                linestyle=style.dash,
                linewidth=1.2,
            )
        for style, group in method_lines(panel.rows, look):
            draw_points(axes, 100 * group["fraction"], group, style, [4.5] * len(group), "-")
        axes.set_xlim(0, 104)

    return arrange(by_ipc(curve), legend(curve), draw, "part of the students' training (%)")


def exhibit(view: View) -> Exhibit | None:
    ends = view.curve
    return Exhibit("curve", ends, plots={"curve": lambda: accuracy_vs_training(ends)}) if len(ends) else None
