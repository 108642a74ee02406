"""Heat maps of compositions: parameterisation by objective."""

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from bench.analysis.dd_ranking import RANDOM_IMAGES
from bench.reporting.plots.boxes import ACCURACY_MAP, BOX, MOST_BOXES, draw_boxes
from bench.reporting.plots.style import limit_names
from bench.reporting.tables.table import OVER_BUDGET, budget_mark, frame_rows

ABREAST = 3  # maps side by side


def composition_heatmap(compositions: pd.DataFrame, summary: pd.DataFrame, place: list[str]) -> Figure:
    """Draw a map for each place, with the accuracy on random images of its cell in the title.

    Args:
        compositions: The rows of a summary that are compositions, with their blocks.
        summary: The frame of `aggregate.summary_frame`.
        place: The columns in which the rows of one map agree.

    Raises:
        TooMuchToDraw: There are more than `MOST_BOXES` numbers.
    """
    limit_names(len(compositions), "boxes", MOST_BOXES)
    rows, columns = (sorted(compositions[name].unique()) for name in ("parameterisation", "objective"))
    maps = [part for _, part in compositions.groupby(place, sort=False)]
    wide, tall = min(ABREAST, len(maps)), -(-len(maps) // ABREAST)
    across = BOX[0] * len(columns) + 0.4
    size = (1.8 + across * wide, (BOX[1] * 1.2 * len(rows) + 1.9) * tall + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(tall, wide, squeeze=False)
    for axes in grid.flat[len(maps) :]:
        axes.set_axis_off()
    accuracy = 100 * compositions["accuracy_mean"]
    colours = Normalize(accuracy.min(), accuracy.max())
    for i, (part, axes) in enumerate(zip(maps, grid.flat, strict=False)):
        values, texts = (_by_block(part, of, rows, columns) for of in (accuracy, _texts(part)))
        draw_boxes(axes, values, texts.fillna(""), colours, ACCURACY_MAP)
        axes.tick_params(labelleft=i % wide == 0)
        axes.set_title(_title(part.iloc[0], summary, place), fontsize="medium")
    bar = figure.colorbar(ScalarMappable(colours, ACCURACY_MAP), ax=grid, pad=0.02)
    bar.set_label("test accuracy (%)")
    over = "" if compositions["within_budget"].all() else f"\n{OVER_BUDGET}"
    figure.supxlabel(f"objective{over}", fontsize="medium")
    figure.supylabel("parameterisation", fontsize="medium")
    return figure


def _texts(rows: pd.DataFrame) -> pd.Series:
    """Percent, with the mark of what is over its budget."""
    texts = [
        f"{100 * row['accuracy_mean']:.1f}"
        + budget_mark(exempt=row["exempt"], over_budget=not row["within_budget"])
        for row in frame_rows(rows)
    ]
    return pd.Series(texts, index=rows.index)


def _by_block(part: pd.DataFrame, values: pd.Series, rows: list[str], columns: list[str]) -> pd.DataFrame:
    """Values of the rows of one map, by parameterisation and objective; NaN where there is none."""
    found = part.assign(value=values[part.index])
    table = found.pivot(index="parameterisation", columns="objective", values="value")
    return table.reindex(index=rows, columns=columns)


def _title(row: pd.Series, summary: pd.DataFrame, place: list[str]) -> str:
    """Where a map is from, and the accuracy on random images there."""
    cell = summary[(summary["method"] == RANDOM_IMAGES)]
    for name in ("dataset", "protocol", "ipc", "eval_arch"):
        cell = cell[cell[name] == row[name]]
    level = 100 * cell["accuracy_mean"].mean()
    others = [
        str(row[name]) for name in place if name not in ("ipc", "distill_arch", "eval_arch") and row[name]
    ]
    reference = "" if np.isnan(level) else f"\n({RANDOM_IMAGES}: {level:.1f})"
    return f"{', '.join(others)}, ipc {row['ipc']}\n{row['distill_arch']} → {row['eval_arch']}{reference}"
