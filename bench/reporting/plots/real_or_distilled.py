"""Sets of real and of distilled images side by side, by label regime: a dot with its interval for each."""

import re
from collections.abc import Callable
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from bench.analysis.real_or_distilled import KINDS, REAL, best_of
from bench.records.naming import LABELS
from bench.reporting.plots.style import COLOURS

KIND_COLOURS = {
    "random": "0.35",
    "chosen": COLOURS[0],
    "patched": COLOURS[2],
    "averaged": COLOURS[5],
    "distilled": COLOURS[3],
    "noise": "0.7",
}
LINE = 0.185  # inches between two names
WIDTH = 2.3  # inches of a panel
MOST_SETS = 60  # in one panel


def regime_plots(title: str, part: pd.DataFrame) -> dict[str, Callable[[], Figure]]:
    """A figure for each ipc of one data set, protocol and network, by the stem of its files."""
    found: dict[str, Callable[[], Figure]] = {}
    for ipc, rows in part.groupby("ipc"):
        if rows["method"].nunique() <= MOST_SETS:
            stem = "real_or_distilled_" + re.sub(r"[^\w.-]+", "-", f"{title}_ipc{ipc}")
            found[stem] = partial(draw_regimes, f"{title}, ipc {ipc}", rows)
    return found


def draw_regimes(title: str, rows: pd.DataFrame) -> Figure:
    """A panel for each label regime, which share their rows: a set each, the best on top."""
    there = set(rows["labels"])
    regimes = [labels for labels in (*LABELS[1:], LABELS[0]) if labels in there]
    first = rows[rows["labels"] == regimes[0]].set_index("method")["accuracy_mean"]
    names = sorted(rows["method"].unique(), key=lambda name: (-first.get(name, -1.0), name))
    height = max(LINE * len(names) + 1.0, 2.2)
    figure = Figure(figsize=(WIDTH * len(regimes) + 3.2, height), layout=ConstrainedLayoutEngine(w_pad=0.06))
    panels = figure.subplots(1, len(regimes), sharex=True, sharey=True, squeeze=False)[0]
    place = {name: len(names) - 1 - i for i, name in enumerate(names)}
    for axes, labels in zip(panels, regimes, strict=True):
        _panel(axes, labels, rows[rows["labels"] == labels], place)
    panels[0].set_yticks(list(place.values()), list(place), fontsize="small")
    panels[0].set_ylim(-0.7, len(names) - 0.3)
    figure.suptitle(title, fontsize="medium")
    figure.supxlabel("test accuracy (%)", fontsize="medium")
    shown = [kind for kind in KINDS if kind in set(rows["kind"])]
    handles = [Line2D([], [], color=KIND_COLOURS[k], marker="o", linestyle="", label=k) for k in shown]
    handles.append(Line2D([], [], color="0.35", linestyle="--", linewidth=1, label="best real"))
    handles.append(Line2D([], [], color="0.35", marker="o", mfc="white", linestyle="", label="over budget"))
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize="small")
    return figure


def _panel(axes: Axes, labels: str, rows: pd.DataFrame, place: dict[str, int]) -> None:
    for kind, group in rows.groupby("kind"):
        colour = KIND_COLOURS[str(kind)]
        for row in group.to_dict("records"):
            y, mean = place[row["method"]], 100 * row["accuracy_mean"]
            ends = [100 * row["accuracy_ci_low"], 100 * row["accuracy_ci_high"]]
            axes.plot(ends, [y, y], color=colour, linewidth=1.2, zorder=2)
            face = colour if row["equal_storage"] else "white"
            axes.plot([mean], [y], "o", color=colour, markerfacecolor=face, markersize=4.5, zorder=3)
    best = best_of(rows, REAL)
    if best is not None:
        axes.axvline(100 * best["accuracy_mean"], color="0.35", linestyle="--", linewidth=1, zorder=1)
    axes.set_title(f"{labels} labels", fontsize="medium")
    axes.grid(axis="y", linewidth=0.4)
    axes.tick_params(labelsize="small")
