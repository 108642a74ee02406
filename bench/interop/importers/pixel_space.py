"""How the pixels of a file are scaled, and the preprocessing that test images need to match them.

A wrong guess costs 10 to 20 points of accuracy, so the user must give what a file and its format do not say.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.core.errors import UserError
from bench.core.paper_constants import CIFAR10, CONSTANTS, Constants, plain_name, whitening_eps
from bench.core.preprocess import Preprocess, Zca, restore_preprocess
from bench.data.dataset import Dataset
from bench.interop.importers.request import ImportRequest

RAW = {"raw01": (0.0, 1.0), "raw255": (0.0, 255.0), "signed": (-1.0, 1.0)}  # the values of black and white
SPACES = (*RAW, "normalized", "zca")
_BEYOND = {"raw01": 0.5, "raw255": 0.25, "signed": 0.25, "normalized": 2.0}  # of [0, 1], where sets may be
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

    "raw01", "raw255" and "signed": values that fill [0, 1], [0, 255] or [-1, 1]; certain. "normalized": mean
    0, deviation 1, beyond [-1, 1], and neighbouring pixels are correlated. "zca": they are not correlated.
    """
    low, high = float(images.min()), float(images.max())
    if images.dtype == torch.uint8 or (low >= 0 and high <= 1):
        return "raw01"
    if low >= -25 and 128 <= high <= 280:  # a set that was optimised may leave [0, 255] a little
        return "raw255"
    if -1 <= low <= -0.5 and high <= 1 and (low == -1 or high == 1 or (low < -0.98 and high > 0.98)):
        return "signed"
    x = images.double()
    mean, std = float(x.mean()), float(x.std())
    x = x - x.mean((0, 2, 3), keepdim=True)
    alike = float((x[..., 1:] * x[..., :-1]).mean() / x.square().mean().clamp_min(1e-12))
    if abs(mean) > 0.5 or std > 2:
        return None
    if alike > 0.4:
        return "normalized" if std > 0.5 and max(-low, high) > 1 else None
    return "zca" if abs(alike) < 0.2 else None


def to_unit(images: Tensor, space: str) -> Tensor:
    """Raw pixels of that space, float, in [0, 1]."""
    black, white = RAW[space]
    return images if space == "raw01" else (images - black) / (white - black)


def near_unit(images: Tensor) -> bool:
    """Whether nearly all of the numbers are floats in or near [0, 1], as IDC stores pixels, unclamped."""
    if not images.is_floating_point() or images.numel() == 0:
        return False
    low, high = _bulk(images)
    return -_BEYOND["raw01"] <= low and high <= 1 + _BEYOND["raw01"]


def _bulk(numbers: Tensor) -> tuple[float, float]:
    """The limits of all numbers but one in a hundred at each end."""
    some = numbers.flatten()[:: numbers.numel() // 100_000 + 1].float()
    low, high = torch.quantile(some, torch.tensor([0.01, 0.99])).tolist()
    return low, high


def settle_space(
    request: ImportRequest,
    images: Tensor,
    dataset: Dataset,
    convention: str | None = None,
    *,
    guess: bool = False,
    allowed: Sequence[str] = SPACES,
) -> str:
    """The space of stored images: from `--space`, else from the format's convention, else a safe guess.

    Args:
        request: the file, and what it does not say of itself.
        images: [N,C,H,W].
        dataset: the data set that they were made from.
        convention: the space that the format always has, if there is one.
        guess: allow a guess from the values, but never of "zca".
        allowed: the spaces that the format may have.

    Returns:
        One of `allowed`.

    Raises:
        UserError: the space is not known, or the values contradict it.
    """
    found = looks_like(images)
    if images.dtype == torch.uint8 and request.space == "raw255":
        return "raw01"
    space = request.space or convention or (found if guess and found != "zca" else None)
    if space is None:
        like = f" (its pixels look {found})" if found else ""
        raise UserError(
            f"{request.path} does not say how its pixels are scaled{like}: pass --space {'|'.join(allowed)}"
        )
    possible = [found] if found in RAW else [s for s in allowed if _may_be(request, images, s, dataset)]
    if space not in possible:
        low, high = float(images.min()), float(images.max())
        held = "8-bit pixels" if images.dtype == torch.uint8 else f"values from {low:g} to {high:g}"
        others = "|".join(s for s in possible if s in allowed)
        is_not = f"so it is {found}" if found in RAW else f"which is not {space} of {dataset.label}"
        advice = f"pass --space {others}" if others else "take another file, or pass the right --format"
        raise UserError(f"{request.path} has {held}, {is_not}: {advice}")
    return space


def _may_be(request: ImportRequest, images: Tensor, space: str, dataset: Dataset) -> bool:
    """Whether nearly all values are pixels that a set in this space may have."""
    if space == "zca":
        return True
    some = images[:: images.numel() // 2_000_000 + 1].float()
    if space == "normalized":
        pixels = preprocess_for(request, space, dataset)[0].invert(some)
    else:
        pixels = to_unit(some, space)
    low, high = _bulk(pixels)
    beyond = _BEYOND[space]
    return -beyond <= low and high <= 1 + beyond and (space != "raw255" or high - low > 0.05)


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
