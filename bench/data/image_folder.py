"""Folders of images: path/train/<class>/* and path/test/<class>/* (or val/), or path/<class>/* to part."""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from bench.core import random
from bench.core.errors import UserError
from bench.data.dataset import DataSource, DecodedSplits, Split
from bench.data.decode import DECODING, decode_images
from bench.data.holdout import held_out
from bench.data.image_files import EXTENSIONS, ImageFile, class_name, list_folder
from bench.data.label_files import ANNOTATIONS, find_labels, images_by_class
from bench.data.spec import DatasetSpec

_TEST_NAMES = ("test", "val", "valid", "validation")
_INSIDE = "images"  # Tiny-ImageNet keeps the images of a class in a folder of this name
_LAYOUT = (
    "expected train/<class>/*.png (or .jpg, ...) and test/<class>/*.png (or val/), or, with `split: 0.2` in "
    "the dataset entry, <class>/*.png"
)


@dataclass(frozen=True)
class ImageTree:
    """The image files of each split: a list per class, in the order of `classes`, sorted by name."""

    root: Path
    classes: tuple[str, ...]
    train: list[list[ImageFile]]
    test: list[list[ImageFile]]
    notes: tuple[str, ...] = ()  # what was passed over

    def files(self) -> list[ImageFile]:
        """All files: those of the training split, then those of the test split."""
        return [file for members in self.train + self.test for file in members]


Members = dict[str, list[ImageFile]]  # of each class


class _Classes(NamedTuple):
    """The image files of one folder."""

    members: Members
    notes: list[str]


class _Splits(NamedTuple):
    """The image files of both splits."""

    train: Members
    test: Members
    notes: list[str]


def open_folder(spec: DatasetSpec) -> DataSource:
    """The source of a folder of images, whose files are listed but not decoded.

    Raises:
        UserError: for a folder that is not laid out as expected.
    """
    assert spec.path is not None  # DatasetSpec requires it for this data set
    tree = scan(spec.path, spec.split)
    # The path is part of the key: two folders may have files of equal names, sizes and (unpacked) times.
    digest = hashlib.sha256(f"{tree.root}\n{spec.image_size}\n{spec.split}\n{DECODING}\n".encode())
    for file in sorted(tree.files()):
        digest.update(f"{file.path}\0{file.size}\0{file.mtime_ns}\n".encode(errors="surrogateescape"))
    return DataSource(digest.hexdigest(), partial(read_tree, tree, spec))


def scan(root: Path, split: float | None = None) -> ImageTree:
    """Find the image files of a folder.

    Args:
        root: the folder.
        split: the fraction of each class that becomes the test split, for a folder of class folders alone.

    Raises:
        UserError: names what is missing, and the expected layout.
    """
    if not os.path.isdir(root):
        raise UserError(f"no folder {root}: set path in the dataset entry to the folder of images; {_LAYOUT}")
    train, test, notes = _published(root) if split is None else _part(root, split)
    if len(train) < 2:
        raise UserError(f"{root} has one class, {next(iter(train))}: a classifier needs two class folders")
    classes = class_order(list(train))
    return ImageTree(
        root, classes, [train[name] for name in classes], [test[name] for name in classes], tuple(notes)
    )


def is_flat(root: Path) -> bool:
    """Whether a folder holds folders of images, and no training split."""
    return not os.path.isdir(root / "train") and any(
        list_folder(root / name).images for name in list_folder(root).folders
    )


def class_order(names: list[str]) -> tuple[str, ...]:
    """The class names sorted as text, or as numbers if all of them are numbers."""
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def read_tree(tree: ImageTree, spec: DatasetSpec) -> DecodedSplits:
    """Decode all files, and say what was passed over and which images are alike.

    Raises:
        UserError: names a file that cannot be used.
    """
    files = [Path(file.path) for file in tree.files()]
    print(f"decoding {len(files):,} images of {spec.label} (once; cached afterwards)", file=sys.stderr)
    images = torch.from_numpy(decode_images(files, spec.image_size))
    counts = [len(members) for members in tree.train + tree.test]
    labels = torch.arange(len(tree.classes)).repeat(2).repeat_interleave(torch.tensor(counts))
    n_train = sum(len(members) for members in tree.train)
    train, test = (Split(images[rows], labels[rows]) for rows in (slice(n_train), slice(n_train, None)))
    for note in (*tree.notes, *_copies(train, test)):
        print(f"{spec.label}: {note}", file=sys.stderr)
    return DecodedSplits(train, test, tree.classes)


def _copies(train: Split, test: Split) -> list[str]:
    """What to say of images that are equal to the last pixel."""
    trained, tested = ([hash(image.tobytes()) for image in part.images.numpy()] for part in (train, test))
    known = set(trained)
    copies, shared = len(trained) - len(known), sum(image in known for image in tested)
    notes = []
    if copies:
        notes.append(f"{copies:,} of {len(trained):,} training images are copies of another")
    if shared:
        notes.append(f"{shared:,} of {len(tested):,} test images are training images too")
    return notes


def _published(root: Path) -> _Splits:
    """The classes of train/ and of the test split beside it."""
    if not os.path.isdir(root / "train"):
        raise UserError(f"no folder {root / 'train'}: {_LAYOUT}")
    there = [root / name for name in _TEST_NAMES if os.path.isdir(root / name)]
    if not there:
        raise UserError(f"no test split in {root}: looked for {', '.join(_TEST_NAMES)}; {_LAYOUT}")
    train = _class_folders(root / "train")
    folder = next((folder for folder in there if _is_labelled(folder, train.members)), None)
    if folder is None:
        raise UserError(
            f"{there[-1]} holds none of the class folders of train/: put its images in class folders, or "
            f"write {there[-1] / ANNOTATIONS}, a line for each image: file name, tab, class; {_LAYOUT}"
        )
    test = _test_classes(folder, train.members)
    _check_alike(train.members, test.members, root, folder.name)
    unlabelled = [f"{other.name}/ has no labels: {folder.name}/ is the test split" for other in there]
    notes = train.notes + test.notes + unlabelled[: there.index(folder)]
    return _Splits(train.members, test.members, notes)


def _is_labelled(folder: Path, classes: Iterable[str]) -> bool:
    return _has_classes(folder, classes) or find_labels(folder) is not None


def _has_classes(folder: Path, classes: Iterable[str]) -> bool:
    return not {class_name(name) for name in list_folder(folder).folders}.isdisjoint(classes)


def _test_classes(folder: Path, classes: Iterable[str]) -> _Classes:
    """The classes of a test split, from its class folders or from a file of labels."""
    labels = find_labels(folder)
    if labels is None or _has_classes(folder, classes):
        return _class_folders(folder)
    images = list_folder(folder / _INSIDE if os.path.isdir(folder / _INSIDE) else folder).images
    return _Classes(images_by_class(images, labels), [])


def _check_alike(train: Iterable[str], test: Iterable[str], root: Path, name: str) -> None:
    only = (set(train) - set(test), set(test) - set(train))
    differ = [
        f"{c} only in {folder}"
        for folder, ours in zip(("train", name), only, strict=True)
        for c in sorted(ours)
    ]
    if differ:
        more = f" and {len(differ) - 10} more" if len(differ) > 10 else ""
        raise UserError(
            f"the classes of the two splits in {root} differ ({', '.join(differ[:10])}{more}): "
            "give both the same class folders"
        )


def _part(root: Path, split: float) -> _Splits:
    """Class folders alone, and a stratified test split of their images, the same for the same file names."""
    if os.path.isdir(root / "train") and list_folder(root / "train").folders:
        raise UserError(f"{root} has train/, and split is for class folders alone: remove it (see holdout)")
    members, notes = _class_folders(root)
    names = class_order(list(members))
    small = next((name for name in names if len(members[name]) < 2), None)
    if small is not None:
        raise UserError(f"class {small} of {root} has one image, and split needs two: add one or remove it")
    files = [(name, file) for name in names for file in members[name]]
    labels = torch.arange(len(names)).repeat_interleave(torch.tensor([len(members[n]) for n in names]))
    found = _Splits({name: [] for name in names}, {name: [] for name in names}, notes)
    rows_of = held_out(labels, len(names), split, random.generator(0, "split"))
    for part, rows in zip((found.train, found.test), rows_of, strict=True):
        for row in rows.tolist():
            name, file = files[row]
            part[name].append(file)
    return found


def _class_folders(folder: Path) -> _Classes:
    """The image files of each class folder. Raises UserError if there is no class, or an empty one."""
    top = list_folder(folder)
    if not top.folders:
        raise UserError(f"no class folders in {folder}: {_LAYOUT}")
    members: Members = {}
    skipped = Counter("image outside class folders" for _ in top.images)
    for name in sorted(top.folders):
        if class_name(name) in members:
            raise UserError(f"{folder} has two folders {class_name(name)}, in two Unicode forms: join them")
        listing = list_folder(folder / name)
        if not listing.images and _INSIDE in listing.folders:
            listing = list_folder(folder / name / _INSIDE)
        if not listing.images:
            raise UserError(
                f"no images in class folder {folder / name} (looked for {', '.join(EXTENSIONS)}): "
                f"add some or remove the folder; {_LAYOUT}"
            )
        members[class_name(name)] = listing.images
        skipped.update(Path(other).suffix.lower() or "without an ending" for other in listing.others)
        skipped.update("folder" for _ in listing.folders)
    counted = ", ".join(f"{count:,} {what}" for what, count in sorted(skipped.items()))
    return _Classes(members, [f"skipped in {folder.name}/: {counted}"] if counted else [])
