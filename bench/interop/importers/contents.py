"""Images and labels of one set: by name, as a pair, in files beside each other, and in numbered parts."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.core.errors import UserError
from bench.core.words import listed
from bench.interop.importers import safe_load
from bench.interop.importers.arrays import as_tensor
from bench.interop.importers.pixel_space import PREPROCESS_KEY
from bench.interop.importers.request import numbers_of, shape_text

SUFFIXES = (".pt", ".pth", ".npz", ".npy", ".safetensors")
IMAGE_NAMES = ("images", "image", "imgs", "img", "data", "x")
LABEL_NAMES = ("labels", "label", "targets", "target", "y")
RATE_NAMES = ("lr",)
# words that stand beside such a name: syn_images, X_train
_BESIDE = ("syn", "synthetic", "distilled", "condensed", "learned", "train")
_UNNAMED = {"arr_0", "arr_1"}  # of numpy.savez(path, images, labels)
_IMAGE_WORD = re.compile(rf"(?<![a-z])({'|'.join(IMAGE_NAMES)})(?![a-z])", re.IGNORECASE)
_LAST_NUMBER = re.compile(r"\d+(?=\D*$)")
WHOLE = ("images_best.pt", "data.pt", *(f"images{suffix}" for suffix in SUFFIXES))


@dataclass(frozen=True)
class Contents:
    """What a file, or files that belong together, hold.

    Args:
        images: of any type that `as_tensor` takes.
        labels: likewise.
        files: that were read.
        stated: what else they say: `lr`, and the preprocessing of one of our exports.
    """

    images: Any
    labels: Any
    files: list[Path]
    stated: Mapping[str, Any] = field(default_factory=dict)


# --- names ------------------------------------------------------------------------------------------------


def find_key(path: Path, held: Iterable[Any], names: Sequence[str]) -> str | None:
    """The key that is one of the names, alone or with a word like `syn`: images, X, image_syn, x_train.

    Raises UserError if several are.
    """
    found = [key for key in held if isinstance(key, str) and _means(key, names)]
    if len(found) > 1:
        raise UserError(f"{path} has {listed(found)}: keep the one that is meant")
    return found[0] if found else None


def _means(key: str, names: Sequence[str]) -> bool:
    words = re.findall("[a-z]+", key.lower())
    return len(rest := [word for word in words if word not in _BESIDE]) == 1 and rest[0] in names


def is_pair(value: Any) -> bool:
    """Whether a value is images and labels without names: [images, labels], or numpy's arr_0 and arr_1."""
    if isinstance(value, Mapping):
        return value.keys() == _UNNAMED
    return isinstance(value, list | tuple) and len(value) == 2


def neighbour(images: Path, names: Sequence[str]) -> Path | None:
    """X_images_3.pt, ("labels", ...) -> X_labels_3.pt in the same folder; None if there is none."""
    stem = images.stem
    others = (
        images.with_name(f"{stem[: match.start()]}{word}{stem[match.end() :]}{images.suffix}")
        for match in _IMAGE_WORD.finditer(stem)
        for name in names
        for word in (name, name.upper(), name.capitalize())
    )
    return next((other for other in others if other.is_file()), None)


# --- files ------------------------------------------------------------------------------------------------


def image_files(path: Path, start: str = "") -> list[Path]:
    """The files with a set's images: the file itself, that of a folder, or its numbered parts in order.

    Parts differ in their last number alone, which counts up from 0 or 1: images_0.pt, ..., or phase0/data.pt.

    Args:
        path: a file or a folder.
        start: of the names of such files.

    Returns:
        The files.

    Raises:
        UserError: the folder has none, or several that are no parts of one set.
    """
    if not path.is_dir():
        return [path]
    for name in WHOLE:
        if name.startswith(start) and (path / name).is_file():
            return [path / name]
    files = [
        file
        for file in path.iterdir()
        if file.suffix.lower() in SUFFIXES and file.is_file() and file.name.startswith(start)
    ]
    files = [file for file in files if not file.name.startswith((".", "images_zca"))]
    labels = {file: neighbour(file, LABEL_NAMES) for file in files}
    more = {neighbour(file, (*RATE_NAMES, PREPROCESS_KEY)) for file in files} | set(labels.values())
    found = [file for file, other in labels.items() if other] or [file for file in files if file not in more]
    found = found or [file for file in path.glob("*/data.pt") if file.is_file() and not start]
    if not found:
        what = f"{start}_best.pt" if start else "distilled set"
        raise UserError(f"no {what} in {path}: name a file ({', '.join(SUFFIXES)}), or a folder of classes")
    return _in_order(path, found)


def _in_order(path: Path, files: list[Path]) -> list[Path]:
    names = {file: str(file.relative_to(path).with_suffix("")) for file in files}
    numbers = {
        file: int(m.group()) if (m := _LAST_NUMBER.search(name)) else 0 for file, name in names.items()
    }
    counted = sorted(numbers.values())
    one = len({_LAST_NUMBER.sub("#", name) + file.suffix for file, name in names.items()}) == 1
    if len(files) > 1 and not (
        one and counted[0] in (0, 1) and counted == [*range(counted[0], counted[-1] + 1)]
    ):
        shown = listed(sorted(names[file] + file.suffix for file in files))
        raise UserError(
            f"several files in {path} ({shown}): name one; parts of one set count up without a gap"
        )
    return sorted(files, key=numbers.__getitem__)


# --- contents ---------------------------------------------------------------------------------------------


def read_contents(path: Path, files: Sequence[Path], n_classes: int) -> Contents:
    """What the files of a set hold, joined if they are parts.

    Args:
        path: that the user named, for error messages.
        files: as `image_files` gives them.
        n_classes: of the data set.

    Returns:
        Images, labels and what else is stated.

    Raises:
        UserError: a file holds no images or labels, or the files are no parts of one set.
    """
    parts = [_of_file(file) for file in files]
    return parts[0] if len(parts) == 1 else _joined(path, parts, n_classes)


def _of_file(path: Path) -> Contents:
    value = load(path)
    if is_pair(value):
        images, labels = (value[key] for key in sorted(value)) if isinstance(value, Mapping) else value
        return Contents(images, labels, [path])
    if isinstance(value, Tensor | np.ndarray):
        return _with_neighbours(path, value)
    held = value if isinstance(value, Mapping) else {}
    keys = [find_key(path, held, names) for names in (IMAGE_NAMES, LABEL_NAMES)]
    missing = [name for name, key in zip(("images", "labels"), keys, strict=True) if key is None]
    if missing:
        raise UserError(
            f"{path} has no {' and no '.join(missing)} (it has {listed(held)}): name them images "
            "and labels, or pass the right --format"
        )
    images, labels = (held[key] for key in keys if key is not None)
    rate = find_key(path, held, RATE_NAMES)
    stated = {"lr": held[rate]} if rate else {}
    stated |= {PREPROCESS_KEY: held[PREPROCESS_KEY]} if PREPROCESS_KEY in held else {}
    return Contents(images, labels, [path], stated)


def _with_neighbours(path: Path, images: Any) -> Contents:
    """Images alone in a file, with what lies beside it."""
    labels = neighbour(path, LABEL_NAMES)
    if labels is None:
        wanted = _IMAGE_WORD.sub("labels", path.stem, count=1)
        wanted = wanted if wanted != path.stem else "labels"
        raise UserError(
            f"{path} has no labels (it has images): put them beside it, as {wanted}{path.suffix} "
            f"beside {wanted.replace('labels', 'images')}{path.suffix}"
        )
    more = {"lr": neighbour(path, RATE_NAMES), PREPROCESS_KEY: neighbour(path, (PREPROCESS_KEY,))}
    found = {name: file for name, file in more.items() if file is not None}
    stated = {name: load(file) for name, file in found.items()}
    return Contents(images, load(labels), [path, labels, *found.values()], stated)


def load(path: Path) -> Any:
    """What a file holds, whatever its ending. Raises UserError if it cannot be read."""
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return safe_load.load_npz(path)
    if suffix == ".npy":
        return safe_load.load_npy(path)
    if suffix != ".safetensors":
        return safe_load.load_torch(path)
    tensors, metadata = safe_load.load_safetensors(path)
    prefix = f"{PREPROCESS_KEY}."
    transform = {k.removeprefix(prefix): tensors.pop(k) for k in list(tensors) if k.startswith(prefix)}
    header = metadata.get(PREPROCESS_KEY)
    return tensors | ({} if header is None else {PREPROCESS_KEY: {"header": header, "tensors": transform}})


def _joined(path: Path, parts: Sequence[Contents], n_classes: int) -> Contents:
    """One set from parts with some classes each, numbered over all parts or from 0 in each."""
    files = [file for part in parts for file in part.files]
    images, labels = (
        [as_tensor(part.files[0], what, getattr(part, what)) for part in parts]
        for what in ("images", "labels")
    )
    for what, tensors in (("images", images), ("labels", labels)):
        if any(t.dim() == 0 for t in tensors) or len({(t.dtype, t.shape[1:]) for t in tensors}) > 1:
            raise UserError(f"{path}: the {what} of its parts differ in shape or type: name one file")
    if labels[0].shape[1:] not in ((), (n_classes,)):
        shape = shape_text(labels[0])
        raise UserError(f"{path}: its parts' labels are {shape}, not N or N x {n_classes}: name one file")
    classes = [set((y if y.dim() == 1 else y.float().argmax(1)).tolist()) for y in labels]
    each, rest = divmod(n_classes, len(parts))
    if rest == 0 and labels[0].dim() == 1 and all(part == set(range(each)) for part in classes):
        labels = [y + each * i for i, y in enumerate(labels)]
    elif sum(map(len, classes)) > len(set().union(*classes)):
        raise UserError(f"{path}: its {len(parts)} files have classes in common, so each is a set: name one")
    rates = {number for part in parts if "lr" in part.stated for number in numbers_of(part.stated["lr"])}
    stated = {**parts[0].stated, **({"lr": sorted(rates)} if rates else {})}
    return Contents(torch.cat(images), torch.cat(labels), files, stated)
