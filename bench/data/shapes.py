"""Data sets known by their shape alone: enough to say what a sweep on them takes, without their files."""

import contextlib
import hashlib
import io
import re
from dataclasses import dataclass

import torch

from bench.core.errors import UserError
from bench.core.words import plain_text
from bench.data.cache import prepare_dataset, read_dataset
from bench.data.dataset import Dataset, Split
from bench.data.spec import DatasetSpec

_WRITTEN = re.compile(r"(\d+)x(\d+)x(\d+)x(\d+)x(\d+)")
META = torch.device("meta")


@dataclass(frozen=True)
class DataShape:
    """So many classes of images of one shape."""

    classes: int
    per_class: int  # training images
    image: tuple[int, int, int]  # (C, H, W)
    test: int  # images


KNOWN = {
    **dict.fromkeys(("mnist", "fashion_mnist", "kmnist"), DataShape(10, 6000, (1, 28, 28), 10_000)),
    "svhn": DataShape(10, 7325, (3, 32, 32), 26_032),
    "cifar10": DataShape(10, 5000, (3, 32, 32), 10_000),
    "cifar100": DataShape(100, 500, (3, 32, 32), 10_000),
    "stl10": DataShape(10, 500, (3, 96, 96), 8000),
}


def parse_shape(text: str) -> DataShape:
    """Read `10x1300x3x128x128`: classes, training images of each, channels, height, width.

    Test images are taken to be 50 a class, as in ImageNet. Raises UserError for anything else.
    """
    found = _WRITTEN.fullmatch(text.strip())
    sizes = [int(size) for size in found.groups()] if found else []
    if not sizes or min(sizes) < 1 or sizes[0] < 2 or max(sizes) > 10**7:
        raise UserError(
            f"--shape: classes x images of each x channels x height x width, as 10x1300x3x128x128, "
            f"not {plain_text(text)!r}"
        )
    classes, per_class, *image = sizes
    return DataShape(classes, per_class, (image[0], image[1], image[2]), 50 * classes)


def outline_dataset(spec: DatasetSpec, shape: DataShape | None = None) -> Dataset:
    """The data set, if its files are here; else one that knows shapes only, with labels.

    Nothing is downloaded.

    Args:
        spec: the entry of the sweep file.
        shape: of a folder of images that is not here.

    Raises:
        UserError: the files are not here, and the shape is not known.
    """
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # it would say that it reads what is not there
            return read_dataset(prepare_dataset(spec.model_copy(update={"download": False})))
    except UserError as error:
        known = shape if spec.name == "image_folder" else KNOWN.get(spec.name)
        if known is None:
            say = "; say its shape, as --shape 10x1300x3x128x128" if spec.name == "image_folder" else ""
            raise UserError(f"{error}{say}") from None
    return _of_shape(spec, known)


def _of_shape(spec: DatasetSpec, shape: DataShape) -> Dataset:
    classes = len(spec.classes) if spec.classes else shape.classes
    held = round(shape.per_class * (spec.holdout or 0.0))
    n_test = held * classes if spec.holdout else shape.test * classes // shape.classes

    def split(n: int) -> Split:
        images = torch.empty(n, *shape.image, dtype=torch.uint8, device=META)
        return Split(images, torch.arange(n) % classes)

    channels = shape.image[0]
    return Dataset(
        name=spec.name,
        label=spec.label,
        train=split((shape.per_class - held) * classes),
        test=split(n_test),
        classes=tuple(map(str, range(classes))),
        fingerprint=hashlib.sha256(f"{spec.label} {shape} {classes} {held}".encode()).hexdigest(),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    )
