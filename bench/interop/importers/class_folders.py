"""Folders of image files, one for each class: RDED, SRe2L, and our own export."""

import re
from pathlib import Path

import torch

from bench.core.errors import UserError
from bench.core.paper_constants import plain_name
from bench.core.words import listed
from bench.data.dataset import Dataset
from bench.data.decode import decode_images
from bench.data.image_files import class_name, list_folder
from bench.interop.export import folder_name
from bench.interop.importers.arrays import plain_set
from bench.interop.importers.request import Imported, ImportRequest, learned_rate

_NUMBERED = re.compile(r"\D*?(\d+)(?:[_-](.*))?")  # 3, 00003, new003, 00003_cat


def read_folder(request: ImportRequest, dataset: Dataset) -> list[Imported]:
    """Class folders named after the classes, or by number from 0; the 8-bit pixels are not changed."""
    if request.space not in (None, "raw01"):
        raise UserError(f"{request.path}: image files hold raw01 pixels: leave out --space {request.space}")
    folders = class_folders(request.path) if request.path.is_dir() else []
    if not folders:
        raise UserError(f"no class folders with images in {request.path}: expected <class>/*.png or .jpg")
    classes, how = match_classes([folder.name for folder in folders], dataset.classes, request.path)
    files, labels = [], []
    for folder, c in sorted(zip(folders, classes, strict=True), key=lambda pair: pair[1]):
        members = sorted(_images(folder), key=_natural)
        files += members
        labels += [c] * len(members)
    images = torch.from_numpy(decode_images(files, None))
    if images.shape[1] == 1 < dataset.image_shape[0]:
        images = images.expand(-1, 3, -1, -1)
    rate = learned_rate(request)
    return [
        plain_set(
            request, dataset, images, labels, [request.path], convention="raw01", rate=rate, notes=(how,)
        )
    ]


def class_folders(path: Path) -> list[Path]:
    """The folders in `path` that contain images."""
    return sorted(path / name for name in list_folder(path).folders if _images(path / name))


def match_classes(names: list[str], classes: tuple[str, ...], path: Path) -> tuple[list[int], str]:
    """Match class folders to classes, by the classes' names or else by number (10 comes after 9).

    Args:
        names: of the folders.
        classes: names of the data set's classes.
        path: where the folders are, for error messages.

    Returns:
        The class of each folder, and a note on how it was found.

    Raises:
        UserError: the folders fit neither way, or the name after a number belongs to another class.
    """
    for spelled in (class_name, _plain):
        position = {spelled(name): i for i, name in enumerate(classes)}
        if len(position) == len(classes) and {spelled(name) for name in names} == set(position):
            return [position[spelled(name)] for name in names], "class folders matched by name"
    parsed = [_NUMBERED.fullmatch(name) for name in names]
    numbers = [int(p.group(1)) for p in parsed if p]
    if len(names) != len(numbers) or sorted(numbers) != list(range(len(classes))):
        strange = listed(sorted(set(names) - set(classes))[:3])
        raise UserError(
            f"{path} has {len(names)} class folders ({strange}, ...), which are "
            f"neither the names of the {len(classes)} classes nor 0..{len(classes) - 1}: rename them"
        )
    owners: dict[str, set[int]] = {}
    for i, name in enumerate(classes):
        for spelling in (name, folder_name(i, name).partition("_")[2]):  # as others and as we write it
            owners.setdefault(_plain(spelling), set()).add(i)
    owners.pop("", None)  # of names without a letter or digit
    for p in filter(None, parsed):
        number, named = int(p.group(1)), owners.get(_plain(p.group(2) or ""))
        if named and number not in named:
            raise UserError(
                f"{path / p.string} is number {number}, but class {p.group(2)!r} is number {min(named)}"
            )
    return numbers, "class folders matched by number"


def _plain(name: str) -> str:
    return plain_name(class_name(name))


def _images(folder: Path) -> list[Path]:
    return [Path(file.path) for file in list_folder(folder).images]


def _natural(file: Path) -> list[tuple[int, str]]:
    """A sort key that puts id2 before id10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name)]
