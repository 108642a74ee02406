"""Images and labels, whatever they came in, as a set of plain images."""

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

_TINY = torch.finfo(torch.float32).tiny  # the logarithm of nothing must be finite


def as_tensor(path: Path, what: str, value: Any) -> Tensor:
    """A tensor, array, number, or list of them. Raises UserError for anything else."""
    try:
        if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
            return torch.stack([item.detach() for item in value])
        return torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError):
        raise UserError(
            f"{path}: its {what} are a {type(value).__name__}, not numbers: pass the right --format"
        ) from None


def images_of(path: Path, value: Any, dataset: Dataset) -> Tensor:
    """Images [N,C,H,W], uint8 or float32; [N,H,W,C] and grey [N,H,W] are put in order.

    Raises UserError for another shape than the data set's, another type, and values that are not finite.
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


def labels_of(path: Path, value: Any, count: int, dataset: Dataset) -> Tensor:
    """Targets: classes int64 [N], or probabilities [N,K]; of rows that are not such, as logits, the softmax.

    Rows that are 0 but for one 1 are classes. Raises UserError where they do not fit images or classes.
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
        return classes
    rows = labels.float()
    if (rows.sum(1) == 1).all() and (rows.max(1).values == 1).all() and (rows >= 0).all():
        return rows.argmax(1)
    if (rows >= 0).all() and torch.allclose(rows.sum(1), torch.ones(count), atol=1e-3):
        return rows
    return rows.softmax(1)


def by_class(path: Path, labels: Tensor, n_classes: int) -> tuple[Tensor, list[int]]:
    """(order, counts): the order that puts images class after class, and how many each class has.

    Soft labels [N,K] go by their largest entry where that gives all classes as many, else stay as they are.
    Raises UserError for a class without an image, and for soft labels of classes of unequal size.
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
        raise UserError(f"{path} has no image of class {counts.index(0)}: name the data set it was made from")
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
    """Plain images from what a file held, sorted by class, as networks see them; uint8 stays so.

    `convention` and `guess` as in `space.settle`; `preprocess`, where the file states it.
    """
    pixels = images_of(request.path, images, dataset)
    targets = labels_of(request.path, labels, len(pixels), dataset)
    if preprocess is None:
        chosen = pixel_space.settle_space(request, pixels, convention, guess=guess)
        preprocess, more = pixel_space.preprocess_for(request, chosen, dataset)
        notes = (*notes, f"pixels taken as {chosen}", *more)
        if chosen == "raw01" and pixels.dtype != torch.uint8:
            pixels = preprocess(pixels)
    order, counts = by_class(request.path, targets, dataset.n_classes)
    soft = targets[order].clamp_min(_TINY).log() if targets.dim() == 2 else None
    tensors = {"images": pixels[order], "label_logits": soft, "inner_lr": rate}
    distilled = build_parameterisation("pixels", tensors, preprocess, counts=counts)
    return finish_import(request, distilled, dataset, files, notes)
