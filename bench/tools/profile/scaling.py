"""How the cost grows with images per class, classes and image side: three points and an exponent for each."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from scipy.stats import linregress

from bench.core.errors import UserError
from bench.core.sampling import ClassIndex
from bench.data.cache import regroup_dataset
from bench.data.dataset import Dataset, Split

IPC, CLASSES, SIDE = "images per class", "classes", "image side"
MOST_PER_CLASS = 512  # real images of a resized data set, as a step uses only a few


@dataclass(frozen=True)
class ScalingAxis:
    """The seconds of a step (without steps, of the distillation) at some sizes."""

    name: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    exponent: float | None = None  # seconds ~ size^exponent, fitted to three points or more
    r2: float | None = None
    note: str = ""  # why there are fewer than three points


@dataclass(frozen=True)
class ScalingPoint:
    """The data and the ipc of one size."""

    data: Dataset
    ipc: int


@dataclass(frozen=True)
class ScalingChoice:
    """The sizes of an axis and how to make each; `here` is the profile's own size."""

    name: str
    here: int
    sizes: tuple[int, ...]
    make: Callable[[int], ScalingPoint]


def sizes_of_ipc(ipc: int, smallest: int) -> tuple[int, ...]:
    """`ipc`, twice and four times as many if the smallest class has enough images, else smaller sizes."""
    factors = next((f for f in ((1, 2, 4), (0.5, 1, 2)) if f[-1] * ipc <= smallest), (0.25, 0.5, 1))
    return tuple(sorted({max(1, int(f * ipc)) for f in factors}))


def sizes_of_classes(n: int) -> tuple[int, ...]:
    """A quarter, half and all of the classes, at least two."""
    return tuple(sorted({max(2, n // 4), max(2, n // 2), n}))


def sizes_of_side(side: int) -> tuple[int, ...]:
    """`side`, 1.5 and 2 times as large; a network for `side` may not take smaller images."""
    return (side, side * 3 // 2, 2 * side)


def scaling_points(whole: Dataset, ipc: int, uses_ipc: bool) -> list[ScalingChoice]:
    """The three axes; for a method that does not depend on ipc, the other two."""
    n, side = whole.n_classes, whole.image_shape[1]
    smallest = int(whole.train.labels.bincount(minlength=n).min())
    budgets = ScalingChoice(IPC, ipc, sizes_of_ipc(ipc, smallest), lambda size: ScalingPoint(whole, size))
    return [budgets] * uses_ipc + [
        ScalingChoice(
            CLASSES, n, sizes_of_classes(n), lambda size: ScalingPoint(fewer_classes(whole, size), ipc)
        ),
        ScalingChoice(SIDE, side, sizes_of_side(side), lambda size: ScalingPoint(resized(whole, size), ipc)),
    ]


def fewer_classes(whole: Dataset, k: int) -> Dataset:
    """The first k classes, as with `classes:` in a sweep file."""
    return regroup_dataset(whole, [[c] for c in range(k)], whole.label)


def resized(whole: Dataset, side: int) -> Dataset:
    """The data set with some of its training images at another size."""
    index = ClassIndex.of(whole.train.labels, whole.n_classes)
    rows = torch.cat([index.members(c)[:MOST_PER_CLASS] for c in range(whole.n_classes)])
    images = [
        F.interpolate(piece.float(), (side, side), mode="bilinear", antialias=True).round().to(torch.uint8)
        for piece in whole.train.images[rows].split(1024)
    ]
    train = Split(torch.cat(images), whole.train.labels[rows])
    return replace(whole, train=train, fingerprint=f"{whole.fingerprint} at {side}")


def fit_exponent(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Fit seconds = a * size^b by least squares on the logarithms; return b and R2."""
    found = linregress([math.log(n) for n in sizes], [math.log(s) for s in seconds])
    return float(found.slope), float(found.rvalue) ** 2


def measure_axis(axis: ScalingChoice, here: float, run: Callable[[ScalingPoint], float]) -> ScalingAxis:
    """Measure the seconds at each size that is possible; `here` are those at the profile's own size."""
    found, notes = {axis.here: here}, []
    for size in axis.sizes:
        if size not in found:
            try:
                found[size] = run(axis.make(size))
            except UserError as error:
                notes.append(f"{size}: {error}")
    sizes = tuple(sorted(found))
    seconds = tuple(found[size] for size in sizes)
    if len(sizes) < 3:
        return ScalingAxis(
            axis.name, sizes, seconds, note="; ".join(notes) or "there are not three sizes to compare"
        )
    return ScalingAxis(axis.name, sizes, seconds, *fit_exponent(sizes, seconds))
