"""Heat maps across architectures: points above or below random images, or accuracies where there are none."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bench.analysis.dd_ranking import RANDOM_IMAGES
from bench.core.words import true_minus
from bench.reporting.method_names import short_names
from bench.reporting.plots.boxes import ACCURACY_MAP, BOX, DIFFERENCE_MAP, MOST_BOXES, draw_boxes
from bench.reporting.plots.style import limit_names
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables.cross_architecture import (
    ACCURACY_PREFIX,
    cross_architecture_tables,
    transfer_architectures,
)

OWN = "#00b050"  # frames the distillation architecture
SPREAD = 3  # colours end at so many times the median difference: one failure must not hide the others


@dataclass(frozen=True)
class TransferMap:
    """What is drawn in a row of heat maps: the rows of one data set and protocol."""

    rows: pd.DataFrame  # of `aggregate.transfer`, with their `name`
    archs: list[str]

    @property
    def ipcs(self) -> list[int | None]:
        """A map each; None where there is nothing but the whole training set."""
        return sorted(self.rows["ipc"].dropna().unique()) or [None]

    @property
    def names(self) -> list[str]:
        """The rows of the maps, random images last."""
        names = list(dict.fromkeys(self.rows["name"]))
        return sorted(names, key=lambda name: name == RANDOM_IMAGES)

    def accuracies(self, ipc: int | None) -> pd.DataFrame:
        """Percent by name and architecture; NaN where nothing was scored."""
        at = self.rows[self.rows["ipc"].isna() | (self.rows["ipc"] == ipc)].set_index("name")
        percent = 100 * at[[ACCURACY_PREFIX + arch for arch in self.archs]].reindex(self.names)
        return percent.set_axis(self.archs, axis="columns")

    @property
    def differs(self) -> bool:
        """Whether every map has random images, and something else to compare with them."""
        others = len(self.names) > 1
        return others and all(RANDOM_IMAGES in self._at(ipc) for ipc in self.ipcs)

    def _at(self, ipc: int | None) -> list[str]:
        return list(self.rows.loc[self.rows["ipc"] == ipc, "name"])

    def values(self, ipc: int | None) -> pd.DataFrame:
        """What is coloured: points above random images of the same cell, which have no colour; or percent."""
        percent = self.accuracies(ipc)
        return (percent - percent.loc[RANDOM_IMAGES]).drop(RANDOM_IMAGES) if self.differs else percent

    def texts(self, ipc: int | None) -> pd.DataFrame:
        """What is written into the boxes: signed points, and percent of random images; or percent."""
        if not self.differs:
            return self.accuracies(ipc).map(lambda value: "" if pd.isna(value) else f"{value:.1f}")
        return self.values(ipc).map(_signed)

    def range(self) -> Normalize:
        """The range of the colours."""
        values = np.concatenate([self.values(ipc).to_numpy(float).ravel() for ipc in self.ipcs])
        if not self.differs:
            return Normalize(np.nanmin(values), np.nanmax(values))
        sizes = np.abs(values[~np.isnan(values)])
        end = min(sizes.max(initial=0.1), max(SPREAD * np.median(sizes), 1)) if len(sizes) else 1
        return Normalize(-end, end)


def _signed(value: float) -> str:
    """`+1.3`, with a real minus sign."""
    return "" if pd.isna(value) else true_minus(f"{value:+z.1f}")


def _names(rows: pd.DataFrame) -> pd.Series:
    """The name of each row: the method, and its distillation architecture if there are several."""
    short = rows["method"].map(short_names(dict.fromkeys(rows["method"])))
    if rows["own_arch"].nunique() < 2 and not rows.duplicated(["ipc", "method"]).any():
        return short
    return short + rows["distill_arch"].map(lambda arch: "" if arch == "any" else f" ({arch})")


def _panel(axes: Axes, drawn: TransferMap, ipc: int | None, colours: Normalize) -> None:
    """Draw boxes by method and evaluation architecture; a frame marks the distillation architecture."""
    values, texts = drawn.values(ipc), drawn.texts(ipc)
    if drawn.differs:  # random images themselves: their accuracy, without a colour
        percent = drawn.accuracies(ipc).loc[[RANDOM_IMAGES]]
        name = f"{RANDOM_IMAGES} (%)"
        values = pd.concat([values, (percent * np.nan).set_axis([name])])
        texts = pd.concat([texts, percent.map(lambda v: "" if pd.isna(v) else f"{v:.1f}").set_axis([name])])
    draw_boxes(axes, values, texts, colours, DIFFERENCE_MAP if drawn.differs else ACCURACY_MAP)
    at = drawn.rows[(drawn.rows["ipc"] == ipc) & (drawn.rows["distill_arch"] != "any")]
    for name, arch in zip(at["name"], at["distill_arch"], strict=True):
        if arch in drawn.archs:
            corner = (drawn.archs.index(arch), list(values.index).index(name))
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=OWN, linewidth=1.8, clip_on=False))


def cross_architecture_heatmap(transfer: pd.DataFrame) -> Figure:
    """Draw a row of heat maps, one for each ipc, for each data set and protocol with several architectures.

    A box is the difference from random images of the same cell, in points; without those, the accuracy.

    Args:
        transfer: The frame of `aggregate.transfer`.

    Raises:
        TooMuchToDraw: There are more than `MOST_BOXES` numbers.
    """
    parts = [
        part for _, part in transfer.groupby(["dataset", "protocol"]) if len(transfer_architectures(part)) > 1
    ]
    maps = [TransferMap(part.assign(name=_names(part)), transfer_architectures(part)) for part in parts]
    limit_names(sum(len(m.names) * len(m.ipcs) * len(m.archs) for m in maps), "boxes", MOST_BOXES)
    n_columns = max(len(m.ipcs) for m in maps)
    widest = max(len(m.archs) for m in maps)
    lines = [line for m in maps for name in m.names for line in name.splitlines()]
    heights = [len(m.names) for m in maps]
    size = (
        0.075 * max(map(len, lines)) + 1.2 + n_columns * (BOX[0] * widest + 0.3),
        sum(BOX[1] * height + 1.3 for height in heights),
    )
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(maps), n_columns, squeeze=False, height_ratios=heights)
    for axes in grid.flat:
        axes.set_axis_off()
    for drawn, line in zip(maps, grid, strict=True):
        colours = drawn.range()
        where = ", ".join(map(str, drawn.rows[["dataset", "protocol"]].iloc[0]))
        for axes, ipc in zip(line, drawn.ipcs, strict=False):
            axes.set_axis_on()
            _panel(axes, drawn, ipc, colours)
            axes.set_title(where + ("" if ipc is None else f", ipc {ipc}"), fontsize="medium")
            axes.tick_params(labelleft=axes is line[0])
        _colour_bar(figure, list(line), drawn, colours)
    figure.supxlabel("evaluated on (framed: what the set was distilled on)", fontsize="medium")
    return figure


def _colour_bar(figure: Figure, line: list[Axes], drawn: TransferMap, colours: Normalize) -> None:
    """Draw the scale beside a row of maps; pointed ends: some boxes are beyond it."""
    if not drawn.differs:
        bar = figure.colorbar(ScalarMappable(colours, ACCURACY_MAP), ax=line, pad=0.02)
        bar.set_label("test accuracy (%)")
        return
    values = np.concatenate([drawn.values(ipc).to_numpy(float).ravel() for ipc in drawn.ipcs])
    below, above = (bool((sign * values > colours.vmax).any()) for sign in (-1, 1))
    extend = "both" if below and above else "min" if below else "max" if above else "neither"
    bar = figure.colorbar(ScalarMappable(colours, DIFFERENCE_MAP), ax=line, pad=0.02, extend=extend)
    bar.set_label(f"points above {RANDOM_IMAGES}")


def cross_architecture_section(view: RecordsView) -> Section | None:
    """Tables and heat maps, where the records hold several evaluation architectures."""
    transfer = view.transfer
    if not (tables := cross_architecture_tables(transfer)):
        return None
    plot = {"cross_architecture": lambda: cross_architecture_heatmap(transfer)}
    return Section("cross_architecture", transfer, tables, plot, printed=True)
