"""KIP and FRePo: numpy archives of images [N,H,W,C] and centred labels, as regression uses them."""

from typing import Any

import torch
from torch import Tensor

from bench.core.errors import UserError
from bench.core.paper_constants import plain_name
from bench.core.words import listed
from bench.data.dataset import Dataset
from bench.interop.importers import safe_load
from bench.interop.importers.arrays import plain_set
from bench.interop.importers.request import Imported, ImportRequest, learned_rate, shape_text

NORMALISED_ONLY = {"mnist", "fashionmnist"}  # data sets that FRePo does not whiten


def read_kip(request: ImportRequest, dataset: Dataset) -> list[Imported]:
    """`images` and `labels` [N,K], taken as classes; the file's name says whether images are whitened."""
    images, labels = _arrays(request, dataset, "images", "labels")
    whitened = "zca" in request.path.stem.lower().split("_")
    note = "labels taken as the class of their largest entry"
    return _set(request, dataset, images, labels.argmax(1), "zca" if whitened else None, note)


def read_frepo(request: ImportRequest, dataset: Dataset) -> list[Imported]:
    """`image` and learned `label` [N,K]; whitened in FRePo's way, except for the MNIST family.

    FRePo's labels are centred and scaled: (one-hot - 1/K) / sqrt(K/10). To make them probabilities, both are
    undone, negative values become 0, and each row is scaled to sum to 1.
    """
    images, labels = _arrays(request, dataset, "image", "label")
    k = dataset.n_classes
    lifted = (labels * (k / 10) ** 0.5 + 1 / k).clamp_min(0)
    soft = lifted / lifted.sum(1, keepdim=True).clamp_min(1e-12)
    grey = {plain_name(dataset.label), plain_name(dataset.name)} & NORMALISED_ONLY
    note = "labels times sqrt(K/10) plus 1/K, cut off at 0, scaled to probabilities"
    return _set(request, dataset, images, soft, "normalized" if grey else "zca", note)


def _set(
    request: ImportRequest,
    dataset: Dataset,
    images: Tensor,
    labels: Tensor,
    convention: str | None,
    note: str,
) -> list[Imported]:
    common: dict[str, Any] = {"convention": convention, "rate": learned_rate(request), "notes": (note,)}
    return [plain_set(request, dataset, images, labels, [request.path], **common)]


def _arrays(request: ImportRequest, dataset: Dataset, *names: str) -> tuple[Tensor, Tensor]:
    """The images and labels under these names. Raises UserError if one is missing or labels are not [N,K]."""
    held = safe_load.load_npz(request.path)
    missing = [name for name in names if name not in held]
    if missing:
        wanted = " and no ".join(missing)
        raise UserError(f"{request.path} has no {wanted} (it has {listed(held)}): pass the right --format")
    images, labels = (held[name] for name in names)
    count = images.shape[:1].numel()
    if labels.shape != (count, dataset.n_classes):
        raise UserError(
            f"{request.path}: its labels are {shape_text(labels)}, not {count} x {dataset.n_classes}: "
            "name the data set they are of"
        )
    if not torch.isfinite(labels).all():
        raise UserError(f"{request.path}: its labels hold NaN or infinite values: take another file")
    return images, labels.double()
