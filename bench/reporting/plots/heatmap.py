"""Heat maps of the accuracy across architectures."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from seaborn.utils import relative_luminance

from bench.reporting.plots.style import limit_names
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables.cross_architecture import (
    ACCURACY_PREFIX,
    cross_architecture_tables,
    transfer_architectures,
)

BOX = (0.75, 0.28)  # inches of one number
MAP = "cividis"  # looks the same with and without colour vision
OWN = "#d55e00"  # frames the distillation architecture
MOST_BOXES = 2000  # of one figure
DARK = 0.179  # luminance below which white text stands out more than black (WCAG 2)


def _names(rows: pd.DataFrame) -> pd.Series:
    """The name of each row: the method, and its distillation architecture if there are several."""
    if rows["own_arch"].nunique() < 2 and not rows.duplicated(["ipc", "method"]).any():
        return rows["method"]
    return rows["method"] + rows["distill_arch"].map(lambda arch: "" if arch == "any" else f" ({arch})")


def _panel(axes: Axes, rows: pd.DataFrame, names: list[str], archs: list[str], colours: Normalize) -> None:
    """Draw percent by method and evaluation architecture; a frame marks the distillation architecture."""
    colours_of = ScalarMappable(colours, MAP).to_rgba
    cells = rows.set_index("name")[[ACCURACY_PREFIX + arch for arch in archs]].reindex(names) * 100
    text = cells.map(lambda value: "" if pd.isna(value) else f"{value:.1f}")
    shown = {"cmap": MAP, "vmin": colours.vmin, "vmax": colours.vmax, "cbar": False, "linewidths": 0.5}
    sns.heatmap(cells, annot=text, fmt="", ax=axes, yticklabels=names, xticklabels=archs, **shown)
    written = cells.to_numpy()[cells.notna()]  # seaborn writes no label where a value is missing
    for label, value in zip(axes.texts, written, strict=True):
        label.set_color("white" if relative_luminance(colours_of(value)) < DARK else "0.1")
    axes.set(xlabel="", ylabel="", facecolor="0.93")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.set_xticks(axes.get_xticks(), archs, rotation=30, ha="right", rotation_mode="anchor")
    for name, own in rows[rows["distill_arch"] != "any"].set_index("name")["distill_arch"].items():
        if own in archs:
            corner = (archs.index(own), names.index(str(name)))
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=OWN, linewidth=1.5, clip_on=False))


def cross_architecture_heatmap(transfer: pd.DataFrame) -> Figure:
    """Draw a row of heat maps, one for each ipc, for each data set and protocol with several architectures.

    Args:
        transfer: The frame of `aggregate.transfer`.

    Raises:
        TooMuchToDraw: There are more than `MOST_BOXES` numbers.
    """
    parts = [
        part for _, part in transfer.groupby(["dataset", "protocol"]) if len(transfer_architectures(part)) > 1
    ]
    sections = [part.assign(name=_names(part)) for part in parts]
    names = [list(dict.fromkeys(part["name"])) for part in sections]
    ipcs = [sorted(part["ipc"].dropna().unique()) or [None] for part in sections]
    archs = [transfer_architectures(part) for part in sections]
    boxes = sum(len(n) * len(i) * len(a) for n, i, a in zip(names, ipcs, archs, strict=True))
    limit_names(boxes, "boxes", MOST_BOXES)
    n_columns, widest = max(map(len, ipcs)), max(map(len, archs))
    left = 0.075 * max(len(name) for found in names for name in found)
    size = (
        left + 1.2 + n_columns * (BOX[0] * widest + 0.3),
        sum(BOX[1] * len(found) + 1.3 for found in names),
    )
    figure = Figure(figsize=size, layout="constrained")
    heights = [len(found) for found in names]
    grid = figure.subplots(len(sections), n_columns, squeeze=False, height_ratios=heights)
    for axes in grid.flat:
        axes.set_axis_off()
    for part, line, rows, columns, budgets in zip(sections, grid, names, archs, ipcs, strict=True):
        values = 100 * part[[ACCURACY_PREFIX + arch for arch in columns]].to_numpy()
        colours = Normalize(np.nanmin(values), np.nanmax(values))
        where = ", ".join(map(str, part[["dataset", "protocol"]].iloc[0]))
        for axes, ipc in zip(line, budgets, strict=False):
            axes.set_axis_on()
            _panel(axes, part[part["ipc"].isna() | (part["ipc"] == ipc)], rows, columns, colours)
            axes.set_title(where + ("" if ipc is None else f", ipc {ipc}"), fontsize="medium")
            axes.tick_params(labelleft=axes is line[0])
        bar = figure.colorbar(ScalarMappable(colours, MAP), ax=list(line), pad=0.02)
        bar.set_label("test accuracy (%)")
    figure.supxlabel("evaluated on (framed: what the set was distilled on)", fontsize="medium")
    return figure


def cross_architecture_section(view: RecordsView) -> Section | None:
    """Tables and heat maps, where the records hold several evaluation architectures."""
    transfer = view.transfer
    if not (tables := cross_architecture_tables(transfer)):
        return None
    plot = {"cross_architecture": lambda: cross_architecture_heatmap(transfer)}
    return Section("cross_architecture", transfer, tables, plot, printed=True)
