"""A picture of a distilled set: one row per class."""

import math
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.files import replacing

MOST_CLASSES = 20
LEAST_SIDE = 48  # pixels on paper for the shorter side of an image: 8x8 digits stay visible
GAP = 4
DPI = 100
MARGIN = 8

Floats = NDArray[np.floating]


def _enlarge(image: Floats, factor: int) -> Floats:
    """[C,H,W] to [H,W,3] with every pixel a square; one channel becomes grey."""
    colour = np.broadcast_to(image, (3, *image.shape[1:])) if len(image) == 1 else image
    return np.kron(colour.transpose(1, 2, 0), np.ones((factor, factor, 1)))


def canvas(images: Floats, labels: NDArray[np.integer], shown: list[int], columns: int) -> Floats:
    """The images of the shown classes on white, a row each; a class with fewer images leaves a gap."""
    _, channels, height, width = images.shape
    if channels not in (1, 3):
        raise ValueError(f"a grid shows 1 or 3 channels, not {channels}")
    factor = math.ceil(LEAST_SIDE / min(height, width))
    height, width = factor * height, factor * width
    sheet = np.ones((len(shown) * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3))
    for row, label in enumerate(shown):
        for column, image in enumerate(images[labels == label][:columns]):
            top, left = row * (height + GAP), column * (width + GAP)
            sheet[top : top + height, left : left + width] = _enlarge(np.clip(image, 0, 1), factor)
    return sheet


def _figure(sheet: Floats, names: list[str], title: str, note: str) -> Figure:
    """The sheet pixel for pixel; names, title and note around it grow the picture when it is saved."""
    height, width, _ = sheet.shape
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(sheet, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    pitch = (height + GAP) / len(names)
    for row, name in enumerate(names):
        axes.text(-MARGIN, row * pitch + (pitch - GAP) / 2, name, ha="right", va="center", fontsize=10)
    axes.text(0, -MARGIN, title, ha="left", va="bottom", fontsize=11, fontweight="bold")
    axes.text(0, height + MARGIN, note, ha="left", va="top", fontsize=9, color="0.35")
    return figure


def save_grid(
    path: Path,
    images: Floats,
    labels: NDArray[np.integer],
    classes: tuple[str, ...],
    title: str,
    per_class: int = 10,
) -> None:
    """Write a PNG of images [N,C,H,W] in [0,1] (clipped), the first `per_class` of each class in a row."""
    shown = list(range(min(len(classes), MOST_CLASSES)))
    most = int(np.bincount(labels, minlength=1).max(initial=1))
    columns = max(1, min(per_class, most))
    left_out = len(classes) - len(shown)
    notes = [f"{left_out} of {len(classes)} classes not shown"] if left_out else []
    notes += [f"{columns} of up to {most} images per class"] if most > columns else []
    with rc_context({"font.family": "DejaVu Sans"}):
        sheet = canvas(images, labels, shown, columns)
        figure = _figure(sheet, [classes[i] for i in shown], title, "; ".join(notes))
        with replacing(path) as temporary:
            figure.savefig(
                temporary, format="png", bbox_inches="tight", pad_inches=0.1, metadata={"Software": None}
            )
