"""The mean and deviation by which the papers' codes normalise the channels of a data set."""

import re
from collections.abc import Iterable

from bench.core.errors import UserError
from bench.core.preprocess import Preprocess

Constants = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation by channel, pixels in [0, 1]

# the mean over images of the deviation of each; the deviation of all pixels is (0.247, 0.243, 0.262)
CIFAR10: Constants = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_IMAGENET: Constants = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# utils.py of VICO-UoE/DatasetCondensation; repositories derived from it use most of them
CONSTANTS: dict[str, Constants] = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashionmnist": ((0.2861,), (0.3530,)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "cifar10": CIFAR10,
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    **dict.fromkeys(("tiny", "tinyimagenet", "imagenet", "imagenet1k"), _IMAGENET),
    **dict.fromkeys((f"image{s}" for s in ("nette", "woof", "meow", "squawk", "fruit", "yellow")), _IMAGENET),
}


def plain_name(name: str) -> str:
    """Letters and digits only, in lower case: fashion_mnist, Fashion-MNIST -> fashionmnist."""
    return re.sub(r"[\W_]+", "", name).lower()


def whitening_eps(kind: str, label: str) -> float:
    """What a kind of whitening adds to the eigenvalues on a data set, see `preprocess.Zca`."""
    return 100.0 if kind == "rtp" and plain_name(label) == "svhn" else 0.1


def paper_normalisation(names: Iterable[str], channels: int) -> Preprocess | None:
    """The papers' normalisation of a data set.

    Args:
        names: of the data set, its label and its source, in any spelling.
        channels: of its images.

    Returns:
        It; None for a data set without published constants for so many channels.
    """
    found = (CONSTANTS[plain] for plain in map(plain_name, names) if plain in CONSTANTS)
    known = next(found, None)
    return Preprocess(*known) if known is not None and len(known[0]) == channels else None


def require_paper_normalisation(label: str, name: str, channels: int) -> Preprocess:
    """`paper_normalisation`. Raises UserError where there is none."""
    known = paper_normalisation((label, name), channels)
    if known is None:
        raise UserError(
            f"preprocess: paper: no published constants for {label} with {channels} channels; "
            f"there are some for {', '.join(CONSTANTS)}"
        )
    return known
