"""Sheets of a distilled set: its images, its bases, the variants of a basis, and how it evolved."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.core.distilled import DistilledDataset, load_distilled
from bench.core.errors import UserError, first_line
from bench.core.words import plain_text
from bench.execution.store import WEIGHTS
from bench.records.columns import Floats
from bench.reporting.images.contact_sheet import Sheet, around_zero, in_rows, into_range
from bench.reporting.method_names import name_on_one_line

PER_CLASS = 10
MOST_CLASSES = 20
FEW = 3  # images per class up to which the classes stand side by side
MOST_BASES = 100


@torch.no_grad()
def artifact_sheets(folder: Path, meta: dict[str, Any], label: str = "") -> Iterator[tuple[str, Sheet]]:
    """Make the sheets of a stored set.

    Bases and hallucinators are found by the names of their attributes: sets from elsewhere may have them too.

    Args:
        folder: The artifact.
        meta: Its `meta.json`.
        label: Of its method, with the settings that tell it from others: they are named in the titles.

    Yields:
        The kind of a sheet, and the sheet: "images"; "bases" where the images are made from bases; "variants"
        where each basis makes several images; "evolution" where snapshots are kept.

    Raises:
        UserError: The set cannot be read, or is not what its `meta.json` says.
    """
    try:
        yield from _sheets(folder, meta, label)
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{folder} cannot be drawn: {plain_text(first_line(error), 200)}") from None


def _sheets(folder: Path, meta: dict[str, Any], label: str) -> Iterator[tuple[str, Sheet]]:
    distilled = load_distilled(folder / WEIGHTS)
    title, classes = f"{_named(meta, label)}  {folder.name}", list(meta["classes"])
    images, targets = distilled.decode()
    labels = targets if targets.ndim == 1 else targets.argmax(1)
    pixels = distilled.preprocess.invert(images).numpy()
    yield "images", _by_class(title, pixels, labels.numpy(), classes)
    bases: Tensor | None = getattr(distilled, "bases", None)
    if bases is not None:
        yield "bases", _bases(f"bases of {title}", bases.numpy())
    if hasattr(distilled, "pair"):
        yield "variants", _variants(f"one basis under each hallucinator: {title}", distilled, pixels, classes)
    if len(taken := meta.get("snapshots", [])) > 1:
        first = _first_of_each(labels)
        yield "evolution", _evolution(f"evolution of {title}", folder, taken, first, classes)


def _named(meta: dict[str, Any], label: str) -> str:
    """The label of a job, with the settings of its method: `idc · factor 2, digits ipc 1 convnet seed 0`."""
    method = meta.get("identity", {}).get("method", "")
    if label in ("", method) or not meta["label"].startswith(f"{method} "):
        return str(meta["label"])
    return f"{name_on_one_line(label)}, {meta['label'].removeprefix(f'{method} ')}"


@torch.no_grad()
def images_sheet(distilled: DistilledDataset, title: str, classes: list[str]) -> Sheet:
    """The images of a set that is in memory, by class."""
    images, targets = (tensor.cpu() for tensor in distilled.decode())
    labels = targets if targets.ndim == 1 else targets.argmax(1)
    return _by_class(title, distilled.preprocess.invert(images).numpy(), labels.numpy(), classes)


def _by_class(title: str, pixels: Floats, labels: np.ndarray, classes: list[str]) -> Sheet:
    """A row per class, or a column where they have few images."""
    shown = min(len(classes), MOST_CLASSES)
    most = int(np.bincount(labels, minlength=1).max(initial=1))
    columns = max(1, min(PER_CLASS, most))
    order = np.argsort(labels, kind="stable")
    rank = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
    keep = order[(rank < columns) & (labels[order] < shown)]
    scaled, notes = into_range(pixels[keep])
    notes += [f"{len(classes) - shown} of {len(classes)} classes not shown"] if len(classes) > shown else []
    notes += [f"{columns} of up to {most} images per class"] if most > columns else []
    images, names = in_rows(scaled, labels[keep], shown, columns), classes[:shown]
    if most <= FEW:
        return Sheet(title, images.swapaxes(0, 1), [""] * columns, names, notes)
    return Sheet(title, images, names, notes=notes)


def _bases(title: str, bases: Floats) -> Sheet:
    """Bases [N,C,H,W], ten in a row, in the order in which they are stored."""
    scaled, notes = around_zero(bases[:MOST_BASES])
    notes += [f"{len(scaled)} of {len(bases)} bases"] if len(bases) > len(scaled) else []
    place = np.arange(len(scaled)) // PER_CLASS
    rows, columns = int(place[-1]) + 1, min(PER_CLASS, len(scaled))
    names = [str(1 + row * PER_CLASS) for row in range(rows)]
    return Sheet(title, in_rows(scaled, place, rows, columns), names, notes=notes)


def _variants(title: str, distilled: Any, pixels: Floats, classes: list[str]) -> Sheet:
    """The first basis of each class, and the image that each hallucinator makes of it."""
    shown, count = min(len(classes), PER_CLASS), min(int(distilled.hallucinators), PER_CLASS)
    first = torch.arange(shown) * distilled.bases_per_class
    made = torch.stack([distilled.pair(first, torch.tensor([j])) for j in range(count)], 1).flatten()
    scaled, notes = into_range(pixels[made.numpy()])
    bases, _ = around_zero(distilled.bases[first].numpy())
    variants = scaled.reshape(shown, count, *scaled.shape[1:])
    basis = np.broadcast_to(bases[:, None], (shown, 1, *scaled.shape[1:]))
    heads = ["basis", *map(str, range(1, count + 1))]
    notes = ["bases: each scaled by itself, grey is 0", *notes]
    return Sheet(title, np.concatenate([basis, variants], axis=1), classes[:shown], heads, notes)


def _first_of_each(labels: Tensor) -> Tensor:
    """The position of the first item of each class, for the first ten classes."""
    found = [(labels == c).nonzero()[:1, 0] for c in range(min(PER_CLASS, int(labels.max()) + 1))]
    return torch.cat(found)


def _evolution(
    title: str, folder: Path, taken: list[dict[str, Any]], first: Tensor, classes: list[str]
) -> Sheet:
    """One image of each class, a row for each snapshot."""
    decoded = [_decode(load_distilled(folder / one["file"]), first) for one in taken]
    pixels = np.stack([images for images, _ in decoded], axis=0)
    scaled, notes = into_range(pixels.reshape(-1, *pixels.shape[2:]))
    names = [
        f"{100 * one['fraction']:.0f} %, step {one['step']}" if one["step"] else "start, step 0"
        for one in taken
    ]
    heads = [classes[c] for c in decoded[-1][1]]
    return Sheet(title, scaled.reshape(pixels.shape), names, heads, notes)


def _decode(distilled: DistilledDataset, items: Tensor) -> tuple[Floats, list[int]]:
    """The pixels [N,C,H,W] and classes of these items."""
    images, targets = distilled.decode(items)
    labels = targets if targets.ndim == 1 else targets.argmax(1)
    return distilled.preprocess.invert(images).numpy(), labels.tolist()
