"""Images and labels from any kind of file, as a set of plain images."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.core.errors import UserError
from bench.core.preprocess import Preprocess
from bench.data.dataset import Dataset
from bench.interop.importers import pixel_space
from bench.interop.importers.request import (
    Imported,
    ImportRequest,
    build_parameterisation,
    check_finite,
    finish_import,
    shape_text,
)

_SAME = 1e-4  # a smaller difference of labels is one of rounding
_TINY = torch.finfo(torch.float32).tiny  # so that the logarithm of 0 is finite


def as_tensor(path: Path, what: str, value: Any) -> Tensor:
    """Convert a tensor, array, number, or list of them. Raises UserError for anything else."""
    try:
        if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
            return torch.stack([item.detach() for item in value])
        return torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise UserError(
            f"{path}: its {what} are a {type(value).__name__}, not numbers: pass the right --format"
        ) from None


def images_of(path: Path, value: Any, dataset: Dataset) -> Tensor:
    """Images [N,C,H,W], uint8 or float32, from that order, from [N,H,W,C], or from grey [N,H,W].

    Raises UserError for another shape than the data set's, for other types, and for values that are not
    finite.
    """
    images, (c, h, w) = as_tensor(path, "images", value), dataset.image_shape
    if images.shape[1:] == (h, w) and c == 1:
        images = images[:, None]
    elif images.shape[1:] == (h, w, c) != (c, h, w):
        images = images.permute(0, 3, 1, 2)
    if images.shape[1:] != (c, h, w) or len(images) == 0:
        raise UserError(
            f"{path}: its images are {shape_text(images)}, those of {dataset.label} N x {c} x {h} x {w}: "
            "name the data set they were made from"
        )
    if images.dtype == torch.uint8:
        return images.contiguous()
    if not images.is_floating_point():
        raise UserError(f"{path}: its images are {images.dtype}: save them as uint8 or floats")
    check_finite(path, images)
    return images.float().contiguous()


def labels_of(path: Path, value: Any, count: int, dataset: Dataset) -> tuple[Tensor, tuple[str, ...]]:
    """Targets, and notes on what they were taken as.

    Rows that are one-hot up to one scale and shift become classes. Other rows are probabilities, or are taken
    as logits, of which the softmax is used.

    Args:
        path: of the file, for error messages.
        value: what the file has as labels.
        count: of the images.
        dataset: the data set that they were made from.

    Returns:
        Classes int64 [N], or probabilities [N,K]; and the notes.

    Raises:
        UserError: the labels do not fit the images or the classes.
    """
    labels, k = as_tensor(path, "labels", value), dataset.n_classes
    if labels.dim() == 2 and labels.shape[1] == 1 != k:
        labels = labels[:, 0]
    if len(labels.shape) not in (1, 2) or len(labels) != count or labels.shape[1:] not in ((), (k,)):
        raise UserError(
            f"{path}: its labels are {shape_text(labels)}, for {count} images and the {k} classes of "
            f"{dataset.label}: name the data set and labels that belong to them"
        )
    if not torch.isfinite(labels).all():
        raise UserError(f"{path}: its labels hold NaN or infinite values: take another file")
    if labels.dim() == 1:
        classes = labels.long()
        if (classes != labels).any() or int(classes.min()) < 0 or int(classes.max()) >= k:
            low, high = labels.min().item(), labels.max().item()
            raise UserError(
                f"{path}: its labels run from {low} to {high}, not from 0 to {k - 1}: relabel them"
            )
        return classes, ()
    rows = labels.float()
    probable = bool((rows > -_SAME).all()) and torch.allclose(rows.sum(1), torch.ones(count), atol=1e-3)
    if _one_hot(rows) and not (probable and rows.max() < 1 - _SAME):  # else smoothed labels
        return rows.argmax(1), () if probable else ("labels are one-hot up to scale and shift: classes",)
    if probable:
        return rows.clamp_min(0), ("labels taken as probabilities",)
    return rows.softmax(1), ("labels taken as logits, of which the softmax is used",)


def _one_hot(rows: Tensor) -> bool:
    """Whether rows [N,K] have one value at one place, and one smaller value at all others."""
    ordered = rows.sort(1).values
    top, rest = ordered[:, -1], ordered[:, :-1]
    spread = max(float(values.max() - values.min()) for values in (top, rest))
    return spread < _SAME * float(top.min() - rest.max())


def by_class(path: Path, labels: Tensor, n_classes: int) -> tuple[Tensor, list[int]]:
    """The order that puts images class after class.

    With soft labels, an image belongs to the class of its largest entry. If that gives classes of unequal
    size, the images are taken to be in class order already.

    Args:
        path: of the file, for error messages.
        labels: classes int64 [N], or probabilities [N,K].
        n_classes: K.

    Returns:
        The order int64 [N], and the number of images of each class.

    Raises:
        UserError: a class has no image, or images with soft labels do not divide into equal classes.
    """
    hard = labels if labels.dim() == 1 else labels.argmax(1)
    order, counts = hard.argsort(stable=True), hard.bincount(minlength=n_classes).tolist()
    if labels.dim() == 2 and len(set(counts)) > 1:
        if len(labels) % n_classes:
            raise UserError(
                f"{path}: {len(labels)} images with soft labels for {n_classes} classes: each needs as many"
            )
        return torch.arange(len(labels)), [len(labels) // n_classes] * n_classes
    if 0 in counts:
        raise UserError(
            f"{path} has no image of class {counts.index(0)}: name the data set it "
            "was made from, or the folder with all parts of the set"
        )
    return order, counts


def plain_set(
    request: ImportRequest,
    dataset: Dataset,
    images: Any,
    labels: Any,
    files: list[Path],
    *,
    convention: str | None = None,
    guess: bool = False,
    preprocess: Preprocess | None = None,
    rate: Tensor | None = None,
    notes: tuple[str, ...] = (),
) -> Imported:
    """A set of plain images, sorted by class.

    Args:
        request: the file, and what it does not say of itself.
        dataset: the data set that the images were made from.
        images: what the file has as images, see `images_of`; uint8 is kept.
        labels: what the file has as labels, see `labels_of`.
        files: that were read.
        convention: as in `settle_space`.
        guess: as in `settle_space`.
        preprocess: the preprocessing, if the file states it.
        rate: the learned rate, if there is one.
        notes: what was assumed so far.

    Returns:
        The imported set.

    Raises:
        UserError: images or labels do not fit the data set, or their space is not known.
    """
    pixels = images_of(request.path, images, dataset)
    targets, taken = labels_of(request.path, labels, len(pixels), dataset)
    notes = (*notes, *taken)
    if preprocess is None:
        chosen = pixel_space.settle_space(request, pixels, dataset, convention, guess=guess)
        preprocess, more = pixel_space.preprocess_for(request, chosen, dataset)
        notes = (*notes, f"pixels taken as {chosen}", *more)
        if chosen in pixel_space.RAW and pixels.dtype != torch.uint8:
            pixels = preprocess(pixel_space.to_unit(pixels, chosen))
    order, counts = by_class(request.path, targets, dataset.n_classes)
    soft = targets[order].clamp_min(_TINY).log() if targets.dim() == 2 else None
    tensors = {"images": pixels[order], "label_logits": soft, "inner_lr": rate}
    distilled = build_parameterisation("pixels", tensors, preprocess, counts=counts)
    return finish_import(request, distilled, dataset, files, notes)
