"""Seconds by phase: a stacked bar per method, with the numbers beside it.

Stacked bars need a linear axis that starts at zero; a phase too short to be seen can be read as a number.
"""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench.analysis.aggregate import COLD_PHASES
from bench.analysis.devices import several_devices
from bench.records.columns import SECONDS
from bench.reporting.method_names import short_names
from bench.reporting.plots.style import Panel, limit_names, natural_order, panel_by_ipc
from bench.reporting.sections import RecordsView, Section
from bench.reporting.tables.table import (
    budget_mark,
    cold_mark,
    cold_notes,
    frame_rows,
    mark_notes,
    short_number,
)

# they differ in grey print and without colour vision
COLOURS = dict(zip(SECONDS, ("#1f3b73", "#56b4e9", "#de8f05", "#7f7f7f", "#029e73", "#d3d3d3"), strict=True))
PHASE_HATCHES = dict(zip(SECONDS, ("", "....", "////", "", "xxxx", ""), strict=True))
PHASE_NAMES = {name: name.removesuffix("_s") for name in SECONDS}
RARE = ["teacher_s", "bookkeeping_s", "tune_s"]  # left out where there are none
MOST_BARS = 400
BAR, WIDTH = 0.21, 3.2  # inches
SIDE_BY_SIDE = "Jobs ran side by side: their seconds compare only roughly."
COLUMN = 0.9  # inches of a column of numbers
HEAD, FOOT, LINE = 0.5, 0.3, 0.17  # inches above and below a panel, and of a note


def quickest_first(rows: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """Sort rows by their `total` seconds, quickest first, unmeasured ones last, and give each a `name`.

    Args:
        rows: Of one panel.
        names: The short names of methods.

    Returns:
        The rows with `total` and `name`, which has the distillation architecture where a method has several
        rows.
    """
    several = rows.duplicated("method").any()
    source = rows["distill_arch"].map(lambda arch: f" ({arch})" if several and arch != "any" else "")
    flags = zip(rows["exempt"], ~rows["within_budget"], strict=True)
    marks = [budget_mark(exempt=exempt, over_budget=over) for exempt, over in flags]
    name = rows["method"].map(names) + source + marks
    total = rows[SECONDS].sum(axis=1, skipna=False)
    return rows.assign(name=name, total=total).sort_values(["total", "name"], kind="stable")


def _phases(summary: pd.DataFrame) -> list[str]:
    """The phases that are drawn."""
    return [name for name in SECONDS if name not in RARE or (summary[name] > 0).any()]


def _panel(axes: Axes, panel: Panel, rows: pd.DataFrame, phases: list[str]) -> None:
    names = list(rows["name"])
    left = pd.Series(0.0, index=rows.index)
    for phase in phases:
        spent = rows[phase].fillna(0)
        axes.barh(
            range(len(rows)), spent, left=left, height=0.72, color=COLOURS[phase], edgecolor="white",
            linewidth=0, hatch=PHASE_HATCHES[phase],
        )  # fmt: skip
        left += spent
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, max(left.max() * 1.03, 1e-9))
    axes.grid(visible=False, axis="y")
    axes.set_title(panel.title.replace("\n", ", "), fontsize="medium", loc="left", pad=16)
    _numbers(axes, rows, phases)


def _numbers(axes: Axes, rows: pd.DataFrame, phases: list[str]) -> None:
    """Write the columns at the right: seconds by phase, and their sum."""
    columns = {**{phase: PHASE_NAMES[phase] for phase in phases}, "total": "total"}
    marked = frame_rows(rows)
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
            mark = cold_mark(marked[y], column) if column in COLD_PHASES else ""
            axes.text(x, y, short_number(seconds) + mark, **at)


def seconds_breakdown(summary: pd.DataFrame) -> Figure:
    """Draw a panel for each data set, protocol, distillation architecture and ipc.

    The seconds to evaluate are those on the distillation architecture.

    Args:
        summary: The frame of `aggregate.summary_frame`.

    Raises:
        TooMuchToDraw: There are more than `MOST_BARS` bars.
    """
    found = sorted(panel_by_ipc(summary), key=lambda panel: (panel.row, panel.column))
    short = short_names(sorted(summary["method"].unique(), key=natural_order))
    rows = [quickest_first(panel.rows, short) for panel in found]
    names = [name for part in rows for name in part["name"]]
    limit_names(len(names), "bars", MOST_BARS)
    notes, phases = _notes(summary), _phases(summary)
    lines = [name.splitlines() for name in names]
    bar = max(BAR, LINE * max(map(len, lines)))
    left = 0.075 * max(len(line) for of_one in lines for line in of_one) + 0.2
    below = 0.45 + LINE * len(notes)
    width = left + WIDTH + (len(phases) + 1) * COLUMN + 0.15
    height = len(found) * (HEAD + FOOT) + bar * len(names) + below
    figure, top = Figure(figsize=(width, height)), height
    for panel, part in zip(found, rows, strict=True):
        tall = bar * len(part)
        top -= HEAD + tall
        box = (left / width, top / height, WIDTH / width, tall / height)
        _panel(figure.add_axes(box), panel, part, phases)
        top -= FOOT
    for i, note in enumerate(notes):
        figure.text(left / width, (below - 0.15 - LINE * (i + 1)) / height, note, fontsize="small")
    bars = [
        Patch(
            facecolor=COLOURS[phase],
            edgecolor="white",
            linewidth=0,
            hatch=PHASE_HATCHES[phase],
            label=PHASE_NAMES[phase],
        )
        for phase in phases
    ]
    figure.legend(
        handles=bars, loc="lower left", bbox_to_anchor=(left / width, 0.06 / height), ncols=len(bars),
        frameon=False, fontsize="small", borderaxespad=0, borderpad=0,
    )  # fmt: skip
    return figure


def _notes(summary: pd.DataFrame) -> list[str]:
    """What the numbers are, and each mark that occurs."""
    notes = ["Seconds, means over seeds; what is prepared once is charged to each method that uses it."]
    if not summary["exclusive"].all():
        notes.append(SIDE_BY_SIDE)
    notes += several_devices(summary["device"])
    rows = frame_rows(summary)
    return notes + cold_notes(rows) + mark_notes(rows)


def seconds_section(view: RecordsView) -> Section:
    """Seconds by phase, from the same rows as the summary table."""
    summary = view.summary
    return Section("breakdown", plots={"breakdown": lambda: seconds_breakdown(summary)})
