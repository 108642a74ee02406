"""What heat maps share: boxes with a number in each, legible on their colour."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from seaborn.utils import relative_luminance

BOX = (0.75, 0.28)  # inches of one number
ACCURACY_MAP = "cividis"  # looks the same with and without colour vision
DIFFERENCE_MAP = (
    "PuOr_r"  # diverges: purple below, orange above, white at 0; told apart without colour vision
)
MOST_BOXES = 2000  # of one figure
DARK = 0.179  # luminance below which white text stands out more than black (WCAG 2)


def draw_boxes(
    axes: Axes, values: pd.DataFrame, texts: pd.DataFrame, colours: Normalize, colour_map: str | Colormap
) -> None:
    """Draw a box for each value, and its text in black or white.

    Args:
        axes: What is drawn on.
        values: A row and a column for each of the boxes; NaN: grey.
        texts: What is written into each box, with the rows and columns of `values`; "" for none.
        colours: The range of the colours.
        colour_map: Their map.
    """
    shown: dict[str, Any] = {"cbar": False, "linewidths": 0.5, "yticklabels": list(values.index)}
    sns.heatmap(values, ax=axes, cmap=colour_map, vmin=colours.vmin, vmax=colours.vmax, **shown)
    colours_of, numbers = ScalarMappable(colours, colour_map).to_rgba, values.to_numpy(float)
    for (y, x), text in np.ndenumerate(texts.to_numpy()):
        if not text:
            continue
        value = numbers[y, x]
        dark = not np.isnan(value) and relative_luminance(colours_of(value)) < DARK
        axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", color="white" if dark else "0.1")
    axes.set(xlabel="", ylabel="", facecolor="0.93")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.set_yticklabels(axes.get_yticklabels(), rotation=0)
    names = list(values.columns)
    axes.set_xticks(np.arange(len(names)) + 0.5, names, rotation=30, ha="right", rotation_mode="anchor")
