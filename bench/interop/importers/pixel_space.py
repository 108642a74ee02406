"""How the pixels of a file are scaled, and the preprocessing that test images need to match them.

A wrong guess costs 10 to 20 points of accuracy, so the user must give what a file and its format do not say.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bench.core.errors import UserError
from bench.core.paper_constants import CIFAR10, CONSTANTS, Constants, plain_name, whitening_eps
from bench.core.preprocess import Preprocess, Zca, restore_preprocess
from bench.data.dataset import Dataset
from bench.interop.importers.request import ImportRequest

SPACES = ("raw01", "normalized", "zca")
PREPROCESS_KEY = "preprocess"  # of our exports, which describe their pixels: {"header": ..., "tensors": ...}
# Where the code of other formats differs: utils.py of mtt-distillation and DatasetFactorization, data.py of
# Efficient-Dataset-Condensation, data_utils.py of RememberThePast.
_OWN: dict[str, dict[str, Constants]] = {
    **{format: {"cifar100": CIFAR10} for format in ("mtt", "datm", "haba", "idc")},
    "rtp": {"cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))},
}
_ZCA = {"kip": "kip", "frepo": "frepo", "rtp": "rtp"}  # format -> kind of whitening; other formats use MTT's


def looks_like(images: Tensor) -> str | None:
    """The space that images [N,C,H,W] look like, or None.

    "raw01": values in [0, 1]. "normalized": mean 0, deviation 1, and neighbouring pixels are correlated.
    "zca": neighbouring pixels are not correlated.
    """
    if images.dtype == torch.uint8 or (float(images.min()) >= 0 and float(images.max()) <= 1):
        return "raw01"
    x = images.double()
    mean, std = float(x.mean()), float(x.std())
    x = x - x.mean((0, 2, 3), keepdim=True)
    alike = float((x[..., 1:] * x[..., :-1]).mean() / x.square().mean().clamp_min(1e-12))
    if abs(mean) > 0.5 or std > 2:
        return None
    if alike > 0.4:
        return "normalized" if std > 0.5 else None
    return "zca" if abs(alike) < 0.2 else None


def settle_space(
    request: ImportRequest, images: Tensor, convention: str | None = None, *, guess: bool = False
) -> str:
    """The space of stored images: from `--space`, else from the format's convention, else a safe guess.

    Args:
        request: the file, and what it does not say of itself.
        images: [N,C,H,W].
        convention: the space that the format always has, if there is one.
        guess: allow a guess from the values, but never of "zca".

    Returns:
        "raw01", "normalized" or "zca".

    Raises:
        UserError: the space is not known, or the values contradict it.
    """
    found = looks_like(images)
    space = request.space or convention or (found if guess and found != "zca" else None)
    if space is None:
        like = f" (its pixels look {found})" if found else ""
        raise UserError(
            f"{request.path} does not say how its pixels are scaled{like}: pass --space {'|'.join(SPACES)}"
        )
    low, high = float(images.min()), float(images.max())
    if space != "raw01" and found == "raw01":
        raise UserError(
            f"{request.path} has values from {low:g} to {high:g}, so it is raw01: pass --space raw01"
        )
    bulk = torch.quantile(
        images.flatten()[:: images.numel() // 100_000 + 1].float(), torch.tensor([0.01, 0.99])
    )
    if space == "raw01" and found != "raw01" and (bulk[0] < -0.5 or bulk[1] > 1.5):
        raise UserError(
            f"{request.path} has values from {low:g} to {high:g}, which is not raw01: "
            "pass --space normalized|zca"
        )
    return space


def preprocess_for(
    request: ImportRequest, space: str, dataset: Dataset
) -> tuple[Preprocess, tuple[str, ...]]:
    """The preprocessing of test images for pixels in a space, and notes on what was assumed."""
    if space == "zca":
        return _whitening(request, dataset)
    own = _OWN.get(request.format, {})
    names = (plain_name(dataset.label), plain_name(dataset.name))
    known = next((own.get(name, CONSTANTS[name]) for name in names if name in CONSTANTS), None)
    if known is not None and len(known[0]) == dataset.image_shape[0] and space == "normalized":
        note = f"normalised with the constants of {request.format} files, std {known[1]}"
        return Preprocess(*known), (note,)
    return Preprocess(dataset.mean, dataset.std), ("normalised with the data set's own mean and std",)


def _whitening(request: ImportRequest, dataset: Dataset) -> tuple[Preprocess, tuple[str, ...]]:
    kind = _ZCA.get(request.format, "mtt")
    whitening = Zca.fit(dataset.train.images, kind, whitening_eps(kind, dataset.label))
    return whitening, (f"ZCA in the way of {kind}, fitted to the training set",)


def stated_preprocess(request: ImportRequest, held: Mapping[str, Any], dataset: Dataset) -> Preprocess | None:
    """The preprocessing that one of our exports contains; None for other files.

    Raises UserError if it is damaged, does not fit the data set, or contradicts `--space`.
    """
    if PREPROCESS_KEY not in held:
        return None
    try:
        value = held[PREPROCESS_KEY]
        found = restore_preprocess(value["header"], value["tensors"])
        found(dataset.train.images[:1])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
        raise UserError(
            f"{request.path}: its preprocessing does not fit {dataset.label}: export it again"
        ) from None
    space = "zca" if isinstance(found, Zca) else "normalized"
    if request.space not in (None, space):
        raise UserError(f"{request.path} says itself that it is {space}: leave out --space {request.space}")
    return found
