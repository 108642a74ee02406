"""Data sets that come with a library: scikit-learn's digits and those of torchvision."""

import contextlib
import json
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bench.core.errors import UserError, first_line
from bench.core.optional import import_torchvision
from bench.data.dataset import DataSource, DecodedSplits, Split
from bench.data.image_folder import open_folder
from bench.data.spec import DatasetSpec


class _Set(NamedTuple):
    kind: str  # the class in torchvision.datasets
    files: str  # the path under its root at which it looks for files
    by_name: bool = False  # it takes split="train" instead of train=True


_SETS = {
    "mnist": _Set("MNIST", "MNIST/raw"),
    "fashion_mnist": _Set("FashionMNIST", "FashionMNIST/raw"),
    "kmnist": _Set("KMNIST", "KMNIST/raw"),
    "svhn": _Set("SVHN", "{split}_32x32.mat", by_name=True),
    "cifar10": _Set("CIFAR10", "cifar-10-batches-py"),
    "cifar100": _Set("CIFAR100", "cifar-100-python"),
    "stl10": _Set("STL10", "stl10_binary", by_name=True),
}


def open_source(spec: DatasetSpec) -> DataSource:
    """The source of a data set, not yet read.

    Raises:
        UserError: for a folder of images that is not laid out as expected.
    """
    if spec.name == "digits":
        return DataSource(version("scikit-learn"), read_digits)
    if spec.name == "image_folder":
        return open_folder(spec)
    return DataSource(json.dumps(str(spec.data_dir)), partial(read_torchvision, spec))


def read_digits() -> DecodedSplits:
    """Read scikit-learn's digits: 1,437 training and 360 test images [1,8,8], a fixed stratified split."""
    # imported here: scikit-learn takes two seconds to import and is needed only until the cache is written
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None])
    labels = torch.from_numpy(digits.target.astype(np.int64))
    rows = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=0, stratify=digits.target)
    train, test = (Split(images[np.sort(part)], labels[np.sort(part)]) for part in rows)
    return DecodedSplits(train, test, tuple(map(str, digits.target_names)))


def read_torchvision(spec: DatasetSpec) -> DecodedSplits:
    """Read a data set of torchvision.

    Raises:
        UserError: for missing or damaged files and a failed download.
    """
    module = import_torchvision("datasets")
    print(f"reading {spec.label} from {spec.data_dir} (once; cached afterwards)", file=sys.stderr)
    (train, classes), (test, _) = (_read_part(module, spec, split) for split in ("train", "test"))
    one, other = (list(split.images.shape[1:]) for split in (train, test))
    if one != other:
        raise UserError(
            f"the {spec.name} files in {spec.data_dir} hold training images of {one} and test "
            f"images of {other}: fetch them again"
        )
    return DecodedSplits(train, test, classes)


def _read_part(module: Any, spec: DatasetSpec, split: str) -> tuple[Split, tuple[str, ...]]:
    """A split, and the names of the classes."""
    entry = _SETS[spec.name]
    root = spec.data_dir
    assert root is not None  # DatasetSpec requires it for these data sets
    which = {"split": split} if entry.by_name else {"train": split == "train"}
    files = root / entry.files.format(split=split)
    if not spec.download and not files.exists():
        raise UserError(
            f"no {spec.name} files: looked for {files}; set download: true in the dataset entry "
            "to fetch them, or data_dir to the folder that holds them"
        )
    try:
        # torchvision prints its progress to stdout, which is for results
        with contextlib.redirect_stdout(sys.stderr):
            part = getattr(module, entry.kind)(str(root), download=spec.download, **which)
        classes = getattr(part, "classes", None) or [str(c) for c in range(10)]  # SVHN has no class names
        return _split(part, len(classes)), tuple(classes)
    except Exception as error:  # archive readers raise anything from EOFError to UnpicklingError
        raise UserError(_failure(spec, files, error)) from error


def _failure(spec: DatasetSpec, files: Path, error: Exception) -> str:
    if spec.download:
        return (
            f"could not download {spec.name} into {spec.data_dir} ({first_line(error)}): check the network, "
            "delete any partial file there, or put the files there yourself"
        )
    return (
        f"the {spec.name} files in {files} are incomplete or damaged ({first_line(error)}): delete them and "
        "set download: true in the dataset entry to fetch them again"
    )


def _split(part: Any, n_classes: int) -> Split:
    """A Split from a torchvision data set, in any of its three layouts. Raises ValueError if it is none."""
    images = torch.as_tensor(part.data)
    if images.ndim == 3:  # the MNIST family: [N, H, W]
        images = images[:, None]
    elif images.shape[-1] == 3:  # CIFAR: [N, H, W, C]
        images = images.permute(0, 3, 1, 2)
    labels = torch.as_tensor(part.targets if hasattr(part, "targets") else part.labels, dtype=torch.int64)
    # torchvision knows the digests of most files, but not of MNIST and its like
    if images.numel() == 0 or labels.shape != images.shape[:1]:
        raise ValueError(f"{len(images):,} images and {len(labels):,} labels")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"labels from {labels.min()} to {labels.max()} for {n_classes} classes")
    return Split(images.contiguous(), labels)
