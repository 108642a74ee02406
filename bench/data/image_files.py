"""The image files of a folder: plain files with an image's ending."""

import os
import stat
import unicodedata
from pathlib import Path
from typing import NamedTuple

from bench.core.errors import UserError
from bench.core.words import check_name

_JPEG = (".jpg", ".jpeg", ".jfif", ".jpe")
EXTENSIONS = (".png", *_JPEG, ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
MOST_BYTES = 2**28  # of an image file


class ImageFile(NamedTuple):
    """An image file and what tells whether it has changed."""

    path: str
    size: int  # bytes
    mtime_ns: int


class Listing(NamedTuple):
    """What a folder holds, hidden entries left out."""

    images: list[ImageFile]  # sorted by name
    folders: list[str]
    others: list[str]  # names of what is neither


def list_folder(folder: Path) -> Listing:
    """What a folder holds; links count as what they lead to.

    Raises:
        UserError: names what cannot be read, and what has an image's ending but is no plain file of at most
            MOST_BYTES, as a pipe or a link to a device.
    """
    found = Listing([], [], [])
    here = str(folder)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    here = entry.path
                    _sort_in(entry, found)
    except OSError as error:
        raise UserError(f"{here} cannot be read ({error.strerror}): mend or remove it") from None
    found.images.sort()
    return found


def _sort_in(entry: os.DirEntry[str], found: Listing) -> None:
    status = entry.stat()
    if stat.S_ISDIR(status.st_mode):
        found.folders.append(entry.name)
    elif not entry.name.lower().endswith(EXTENSIONS):
        found.others.append(entry.name)
    elif not stat.S_ISREG(status.st_mode):
        raise UserError(f"{entry.path} is no plain file: remove it")
    elif status.st_size > MOST_BYTES:
        raise UserError(
            f"{entry.path} has {status.st_size:,} bytes, an image may have {MOST_BYTES:,}: make it smaller"
        )
    else:
        found.images.append(ImageFile(entry.path, status.st_size, status.st_mtime_ns))


def class_name(folder: str) -> str:
    """The class of a folder: its name in composed Unicode, because macOS decomposes some.

    Raises UserError for a name that is not short and printable.
    """
    try:
        return check_name(unicodedata.normalize("NFC", folder))
    except UserError as error:
        raise UserError(f"a class folder's name {error}: rename it") from None
