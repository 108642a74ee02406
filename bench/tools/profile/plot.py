"""A profile as a picture: what each phase is spent on, and how the cost scales."""

from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.core.timing import OPERATIONS, Operation
from bench.core.words import duration
from bench.reporting.plots.style import draw_ticks
from bench.tools.profile.result import Profile
from bench.tools.profile.scaling import ScalingAxis

PROFILE_SIZE = (8.0, 4.6)  # inches
OPERATION_HATCHES = ("", "", "", "", "", "//", "", "..")  # where neighbouring colours look alike in grey


def operation_colours() -> dict[Operation, Any]:
    """The colour of each operation, the same in all plots; "other" is grey."""
    palette = [colour for i, colour in enumerate(sns.color_palette("colorblind")) if i != 7]  # its grey
    return dict(zip(OPERATIONS, palette, strict=False)) | {"other": "0.75"}


def draw_profile(profile: Profile) -> Figure:
    """Stacked bars of the phases, and below them a panel for each scaling axis."""
    figure = Figure(figsize=PROFILE_SIZE, layout="constrained")
    scaled = [axis for axis in profile.scaling if len(axis.sizes) > 1]
    rows = figure.subfigures(2 if scaled else 1, 1, height_ratios=[1.1, 1] if scaled else [1], squeeze=False)
    _bars(rows[0, 0], profile)
    if scaled:
        panels = rows[1, 0].subplots(1, len(scaled), squeeze=False, sharey=True)[0]
        for i, axis in enumerate(scaled):
            _panel(panels[i], axis)
        what = "ms a step" if profile.step else "ms, distillation"
        panels[0].set_ylabel(f"{what} (log)")
    return figure


def _bars(figure: Any, profile: Profile) -> None:
    axes, look = figure.subplots(), operation_colours()
    phases = [phase for phase in reversed(profile.phases) if phase.total]
    left = np.zeros(len(phases))
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1}
    for name, hatch in zip(OPERATIONS, OPERATION_HATCHES, strict=True):
        shares = np.array([100 * phase.spent.get(name, 0) / phase.total for phase in phases])
        if not shares.any():
            continue
        style = {"color": look[name], "hatch": hatch, "edgecolor": "white", "linewidth": 0.8}
        bars = axes.barh(range(len(phases)), shares, left=left, height=0.62, label=name, **style)
        texts = [f"{share:.0f}" if share >= 6 else "" for share in shares]
        axes.bar_label(bars, texts, label_type="center", fontsize=7, bbox=box)
        left += shares
    for y, phase in enumerate(phases):
        axes.text(101, y, f"{duration(phase.projected_s)} in full", va="center", fontsize=8)
    axes.set_yticks(range(len(phases)), [phase.name for phase in phases])
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the phase's own time")
    axes.set_title(profile.title, fontsize="medium")
    axes.grid(visible=False)
    sns.despine(ax=axes, left=True)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)


def _panel(axes: Axes, axis: ScalingAxis) -> None:
    """The measured points, and the line fitted to them."""
    sizes, ms = np.array(axis.sizes, dtype=float), 1000 * np.array(axis.seconds)
    colour = sns.color_palette("colorblind")[0]
    if axis.exponent is not None:
        middle = np.exp(np.log(ms).mean() - axis.exponent * np.log(sizes).mean())
        axes.plot(sizes, middle * sizes**axis.exponent, color="0.5", linestyle="--", linewidth=1)
        axes.set_title(f"~ size^{axis.exponent:.2f}, R² {axis.r2:.2f}", fontsize="medium")
    axes.plot(sizes, ms, color=colour, marker="o", linestyle="", markersize=5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(f"{axis.name} (log)")
    draw_ticks(axes, list(sizes))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
