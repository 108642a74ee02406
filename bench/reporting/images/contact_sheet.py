"""Contact sheets: small images in rows and columns with names around them, as a PNG. No torch."""

import math
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.core.errors import UserError, first_line
from bench.core.io import replacing
from bench.core.words import plain_text
from bench.records.columns import Floats

LEAST_SIDE = 48  # pixels on paper for the shorter side of an image: 8x8 digits stay visible
IMAGE_GAP = 4
DPI = 100
MARGIN = 8
LEAST_TITLE, TITLE_LETTER = 40, 9.5  # characters of a line of the title, and pixels of one
MOST_TITLE, MOST_NAME = 300, 60  # characters; names of classes are as long as those who made them liked
SHORT = 5  # characters of a column's heading that fit above one image; longer ones are rotated
SHEET_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "text.parse_math": False,
}  # a name may hold a dollar
OUTLIERS = (1, 99)  # percentiles of an image's values that are scaled to 0 and 1


@dataclass(frozen=True)
class Sheet:
    """Images in rows and columns, and the text around them."""

    title: str
    images: Floats  # [rows,columns,C,H,W] in [0,1]; NaN where there is none
    names: list[str]  # of the rows
    heads: list[str] = field(default_factory=list)  # of the columns
    notes: list[str] = field(default_factory=list)


def _by_image(images: Floats, values: Floats) -> Floats:
    """Values [N] in the shape [N,1,...] that broadcasts with the images."""
    return values.reshape(-1, *[1] * (images.ndim - 1))


def into_range(images: Floats) -> tuple[Floats, list[str]]:
    """Scale images whose pixels leave [0, 1] into it, each by itself; all others stay as they are.

    Args:
        images: Pixels [N,C,H,W].

    Returns:
        Images of the same shape, and a note if some were scaled.
    """
    flat = images.reshape(len(images), -1)
    low, high = np.percentile(flat, OUTLIERS, axis=1)
    low, high = np.minimum(low, 0), np.maximum(high, 1)
    shown = (images - _by_image(images, low)) / _by_image(images, high - low)
    moved = int(((low < 0) | (high > 1)).sum())
    span = f"{flat.min():.3g} to {flat.max():.3g}" if len(images) else ""
    scaled = f"values from {span}: {moved} of {len(images)} images scaled into [0, 1], each by itself"
    return np.clip(shown, 0, 1), [scaled] if moved else []


def around_zero(images: Floats) -> tuple[Floats, list[str]]:
    """Scale arrays [N,C,H,W] that are no pixels, each by its largest absolute value, so that grey is 0."""
    largest = np.abs(images).reshape(len(images), -1).max(axis=1)
    shown = 0.5 + images / (2 * _by_image(images, np.maximum(largest, 1e-12)))
    return shown, ["each scaled by itself; grey is 0"]


def in_rows(images: Floats, rows: NDArray[np.integer], n_rows: int, columns: int) -> Floats:
    """Arrange images in rows.

    Args:
        images: [N,C,H,W].
        rows: [N], the row of each image.
        n_rows: How many rows there are.
        columns: How many images of a row are kept, the first ones.

    Returns:
        [n_rows,columns,C,H,W], NaN where a row has fewer images.
    """
    sheet = np.full((n_rows, columns, *images.shape[1:]), np.nan)
    for row in range(n_rows):
        first = images[rows == row][:columns]
        sheet[row, : len(first)] = first
    return sheet


def sheet_canvas(images: Floats) -> Floats:
    """Join images [rows,columns,C,H,W] to one picture [height,width,3] on white; small ones are enlarged."""
    rows, columns, channels, *side = images.shape
    if channels not in (1, 3):
        raise ValueError(f"a grid shows 1 or 3 channels, not {channels}")
    factor = math.ceil(LEAST_SIDE / min(side))
    large = np.nan_to_num(images, nan=1.0).repeat(factor, axis=3).repeat(factor, axis=4)
    framed = np.pad(large, ((0, 0), (0, 0), (0, 0), (0, IMAGE_GAP), (0, IMAGE_GAP)), constant_values=1.0)
    height, width = rows * framed.shape[3], columns * framed.shape[4]
    sheet = framed.transpose(0, 3, 1, 4, 2).reshape(height, width, channels)
    return np.broadcast_to(sheet, (*sheet.shape[:2], 3))[:-IMAGE_GAP, :-IMAGE_GAP]


def _heads(axes: Axes, heads: list[str], pitch: float) -> float:
    """Write headings above the columns, rotated if one is long; return the height they take, in pixels."""
    turned = max(map(len, heads), default=0) > SHORT
    how: dict[str, Any] = {"rotation": 45, "ha": "left"} if turned else {"ha": "center"}
    for column, head in enumerate(heads):
        middle = column * pitch + (pitch - IMAGE_GAP) / 2
        axes.text(middle, -MARGIN, head, va="bottom", rotation_mode="anchor", fontsize=10, **how)
    return (9.0 * max(map(len, heads)) * 0.75 + 14 if turned else 20.0) if heads else 0.0


def sheet_figure(sheet: Sheet) -> Figure:
    """The sheet pixel for pixel; the text around it enlarges the picture when it is saved, so it is cut."""
    sheet = replace(
        sheet,
        title=plain_text(sheet.title, MOST_TITLE),
        names=[plain_text(name, MOST_NAME) for name in sheet.names],
        heads=[plain_text(head, MOST_NAME) for head in sheet.heads],
    )
    picture = sheet_canvas(sheet.images)
    height, width, _ = picture.shape
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    pitch = (height + IMAGE_GAP) / len(sheet.names)
    for row, name in enumerate(sheet.names):
        axes.text(-MARGIN, row * pitch + (pitch - IMAGE_GAP) / 2, name, ha="right", va="center", fontsize=10)
    lift = _heads(axes, sheet.heads, (width + IMAGE_GAP) / max(1, len(sheet.heads)))
    title = "\n".join(textwrap.wrap(sheet.title, max(LEAST_TITLE, int(width / TITLE_LETTER))))
    axes.text(0, -MARGIN - lift, title, ha="left", va="bottom", fontsize=11, fontweight="bold")
    note = "\n".join(sheet.notes)
    axes.text(0, height + MARGIN, note, ha="left", va="top", fontsize=9, color="0.35")
    return figure


def save_sheet(sheet: Sheet, path: Path) -> Path:
    """Write a sheet as PNG, the same bytes for the same sheet; return the path.

    Raises:
        UserError: It has no picture: channels that are no colours, or more pixels than a picture can have.
    """
    try:
        with rc_context(cast(Any, SHEET_STYLE)), replacing(path) as temporary:
            sheet_figure(sheet).savefig(
                temporary, format="png", bbox_inches="tight", pad_inches=0.1, metadata={"Software": None}
            )
    except ValueError as error:
        raise UserError(f"{path.name} cannot be drawn: {first_line(error)}") from None
    return path
