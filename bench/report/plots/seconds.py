"""Where the seconds go: a bar per method, and each phase as a number beside it.

Bars are stacked, so the axis is linear and starts at zero; what is too short to be seen is a number.
"""

from typing import Any, cast

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench.analysis.aggregate import SECONDS
from bench.records.columns import Row
from bench.report.plots.style import Panel, limit_names, panel_by_ipc
from bench.report.sections import RecordsView, Section
from bench.report.tables.table import budget_mark, mark_notes, short_number

# dark, middle and light: told apart in grey print and without colour vision
PHASES = dict(zip(SECONDS, ("#1f3b73", "#de8f05", "#d3d3d3"), strict=True))
PHASE_HATCHES = dict(zip(SECONDS, ("", "////", ""), strict=True))
PHASE_NAMES = dict(zip(SECONDS, ("prepare", "distil", "evaluate"), strict=True))
MOST_BARS = 400
BAR, WIDTH = 0.21, 3.2  # inches
COLUMN = 0.68  # of a column of numbers
HEAD, FOOT, LINE = 0.5, 0.3, 0.17  # of what stands above and below a panel, and of a note


def slowest_first(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per method, quickest first, the unmeasured last; several sources have a row each, by `name`."""
    several = rows.duplicated("method").any()
    source = rows["distill_arch"].map(lambda arch: f" ({arch})" if several and arch != "any" else "")
    marks = [budget_mark(*flags) for flags in zip(rows["exempt"], ~rows["within_budget"], strict=True)]
    named = rows.assign(name=rows["method"] + source + marks, total=rows[SECONDS].sum(axis=1, skipna=False))
    return named.sort_values(["total", "name"], kind="stable")


def _panel(axes: Axes, panel: Panel) -> None:
    rows = slowest_first(panel.rows)
    names = list(rows["name"])
    left = pd.Series(0.0, index=rows.index)
    for phase, colour in PHASES.items():
        spent = rows[phase].fillna(0)
        axes.barh(
            range(len(rows)), spent, left=left, height=0.72, color=colour, edgecolor="white",
            linewidth=0, hatch=PHASE_HATCHES[phase],
        )  # fmt: skip
        left += spent
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, max(left.max() * 1.03, 1e-9))
    axes.grid(visible=False, axis="y")
    axes.set_title(panel.title.replace("\n", ", "), fontsize="medium", loc="left", pad=16)
    _numbers(axes, rows)


def _numbers(axes: Axes, rows: pd.DataFrame) -> None:
    """The columns at the right: seconds by phase, and their sum."""
    columns = {**{phase: PHASE_NAMES[phase] for phase in SECONDS}, "total": "total"}
    for i, (column, header) in enumerate(columns.items()):
        x = 1 + (i + 1) * COLUMN / WIDTH
        at: dict[str, Any] = {
            "transform": axes.get_yaxis_transform(),
            "ha": "right",
            "va": "center",
            "fontsize": "small",
        }
        axes.text(x, -0.5 - 0.45, header, weight="bold", **at)
        for y, seconds in enumerate(rows[column]):
            axes.text(x, y, short_number(seconds), **at)


def seconds_breakdown(summary: pd.DataFrame) -> Figure:
    """A panel for each data set, protocol, distillation architecture and ipc, on the own architecture.

    Raises TooMuch.
    """
    found = sorted(panel_by_ipc(summary), key=lambda panel: (panel.row, panel.column))
    names = [name for panel in found for name in slowest_first(panel.rows)["name"]]
    limit_names(len(names), "bars", MOST_BARS)
    notes = _notes(summary)
    left, below = 0.075 * max(map(len, names)) + 0.2, 0.45 + LINE * len(notes)
    width = left + WIDTH + 4 * COLUMN + 0.15
    height = len(found) * (HEAD + FOOT) + BAR * len(names) + below
    figure, top = Figure(figsize=(width, height)), height
    for panel in found:
        tall = BAR * len(panel.rows)
        top -= HEAD + tall
        _panel(figure.add_axes((left / width, top / height, WIDTH / width, tall / height)), panel)
        top -= FOOT
    for i, note in enumerate(notes):
        figure.text(left / width, (below - 0.15 - LINE * (i + 1)) / height, note, fontsize="small")
    bars = [
        Patch(
            facecolor=colour,
            edgecolor="white",
            linewidth=0,
            hatch=PHASE_HATCHES[phase],
            label=PHASE_NAMES[phase],
        )
        for phase, colour in PHASES.items()
    ]
    figure.legend(
        handles=bars, loc="lower left", bbox_to_anchor=(left / width, 0.06 / height), ncols=len(bars),
        frameon=False, fontsize="small", borderaxespad=0, borderpad=0,
    )  # fmt: skip
    return figure


def _notes(summary: pd.DataFrame) -> list[str]:
    """What the figures are, and each mark that occurs."""
    shared = (
        [] if summary["exclusive"].all() else ["Jobs ran side by side: their seconds compare only roughly."]
    )
    return [
        "Seconds, means over seeds; what is prepared once is charged to each method that uses it.",
        *shared,
        *mark_notes(cast(list[Row], summary.to_dict("records"))),
    ]


def seconds_section(view: RecordsView) -> Section:
    summary = view.summary
    return Section("breakdown", plots={"breakdown": lambda: seconds_breakdown(summary)})
