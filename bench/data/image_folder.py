"""Folders of images: path/train/<class>/* and path/test/<class>/* (or val/)."""

import hashlib
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from bench.core.errors import UserError
from bench.data.dataset import DataSource, DecodedSplits, Split
from bench.data.decode import decode_all
from bench.data.spec import DatasetSpec

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_TEST_NAMES = ("test", "val", "valid", "validation")
_LAYOUT = "expected train/<class>/*.png (or .jpg, ...) and test/<class>/*.png (or val/)"


class ImageFile(NamedTuple):
    """An image file and what tells whether it has changed."""

    path: str
    size: int  # bytes
    mtime_ns: int


@dataclass(frozen=True)
class ImageTree:
    """The image files of each split: a list per class, in the order of `classes`, sorted by name."""

    root: Path
    classes: tuple[str, ...]
    train: list[list[ImageFile]]
    test: list[list[ImageFile]]

    def files(self) -> list[ImageFile]:
        """All files: those of the training split, then those of the test split."""
        return [file for members in self.train + self.test for file in members]


def open_folder(spec: DatasetSpec) -> DataSource:
    """The source of a folder of images, whose files are listed but not decoded.

    Raises:
        UserError: for a folder that is not laid out as expected.
    """
    assert spec.path is not None  # DatasetSpec requires it for this data set
    tree = scan(spec.path)
    # The path is part of the key: two folders may have files of equal names, sizes and (unpacked) times.
    digest = hashlib.sha256(f"{tree.root}\n{spec.image_size}\n".encode())
    for file in sorted(tree.files()):
        digest.update(f"{file.path}\0{file.size}\0{file.mtime_ns}\n".encode(errors="surrogateescape"))
    return DataSource(digest.hexdigest(), partial(read_tree, tree, spec))


def scan(root: Path) -> ImageTree:
    """Find the image files of a folder.

    Raises:
        UserError: names what is missing, and the expected layout.
    """
    train_folder = root / "train"
    if not root.is_dir():
        raise UserError(f"no folder {root}: set path in the dataset entry to the folder of images; {_LAYOUT}")
    if not train_folder.is_dir():
        raise UserError(f"no folder {train_folder}: {_LAYOUT}")
    test_folder = next((root / name for name in _TEST_NAMES if (root / name).is_dir()), None)
    if test_folder is None:
        raise UserError(f"no test split in {root}: looked for {', '.join(_TEST_NAMES)}; {_LAYOUT}")
    train, test = _scan_split(train_folder), _scan_split(test_folder)
    if train.keys() != test.keys():
        differ = [f"{name} only in {train_folder.name}" for name in sorted(train.keys() - test.keys())]
        differ += [f"{name} only in {test_folder.name}" for name in sorted(test.keys() - train.keys())]
        more = f" and {len(differ) - 10} more" if len(differ) > 10 else ""
        raise UserError(
            f"the classes of the two splits in {root} differ ({', '.join(differ[:10])}{more}): "
            "give both the same class folders"
        )
    classes = class_order(list(train))
    return ImageTree(root, classes, [train[name] for name in classes], [test[name] for name in classes])


def class_order(names: list[str]) -> tuple[str, ...]:
    """The class names sorted as text, or as numbers if all of them are numbers."""
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def read_tree(tree: ImageTree, spec: DatasetSpec) -> DecodedSplits:
    """Decode all files.

    Raises:
        UserError: names a file that cannot be used.
    """
    files = [Path(file.path) for file in tree.files()]
    print(f"decoding {len(files):,} images of {spec.label} (once; cached afterwards)", file=sys.stderr)
    images = torch.from_numpy(decode_all(files, spec.image_size))
    counts = [len(members) for members in tree.train + tree.test]
    labels = torch.arange(len(tree.classes)).repeat(2).repeat_interleave(torch.tensor(counts))
    n_train = sum(len(members) for members in tree.train)
    train, test = (Split(images[rows], labels[rows]) for rows in (slice(n_train), slice(n_train, None)))
    return DecodedSplits(train, test, tree.classes)


def _scan_split(folder: Path) -> dict[str, list[ImageFile]]:
    """The image files of each class folder. Raises UserError if there is no class, or an empty one."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    if not names:
        raise UserError(f"no class folders in {folder}: {_LAYOUT}")
    members = {name: _scan_class(folder / name) for name in names}
    for name in sorted(names):
        if not members[name]:
            raise UserError(
                f"no images in class folder {folder / name} (looked for {', '.join(EXTENSIONS)}): "
                f"add some or remove the folder; {_LAYOUT}"
            )
    return members


def _scan_class(folder: Path) -> list[ImageFile]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            named = entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith(".")
            if named and entry.is_file():
                status = entry.stat()
                found.append(ImageFile(entry.path, status.st_size, status.st_mtime_ns))
    return sorted(found)
