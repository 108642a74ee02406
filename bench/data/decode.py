"""Image files to one uint8 array.

Not in bench.data, which imports torch: the decoding processes shall start in a fraction of a second.
"""

import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import Progress

from bench.core.errors import UserError

_CHUNK = 64  # files per task
# Processes, because on small images two threads that share the interpreter lock were measured slower than
# one (275 against 230 microseconds for a 32x32 JPEG). Fewer files than this are decoded
# before a pool has started.
_POOL_FROM = 4000
_GREY = {"1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N"}
_TOO_DEEP = {"I", "F"}  # 32 bits per pixel: no range of values that would be known to be white


class Decoded(NamedTuple):
    pixels: npt.NDArray[np.uint8]  # [H, W, 3]
    grey: bool
    size: tuple[int, int]  # (width, height) of the file


def decode_all(files: list[Path], image_size: int | None) -> npt.NDArray[np.uint8]:
    """Decode at least one file: uint8 [N, 1, S, S] where every image is grey, else RGB [N, 3, S, S].

    S is `image_size`, or the size that all files share. Shows a bar where stderr is a terminal. Raises
    UserError naming a file that cannot be decoded or has another size.
    """
    first = decode(files[0], image_size)
    _check_size(files[0], first.size, files[0], first.size, image_size)
    images = np.empty((len(files), 3, *first.pixels.shape[:2]), dtype=np.uint8)
    all_grey = True
    for row, (file, image) in enumerate(zip(files, _decoded(files, image_size), strict=True)):
        _check_size(file, image.size, files[0], first.size, image_size)
        images[row] = image.pixels.transpose(2, 0, 1)
        all_grey &= image.grey
    return np.ascontiguousarray(images[:, :1]) if all_grey else images


def decode(file: Path, image_size: int | None) -> Decoded:
    """Decode one file as 8-bit RGB; with `image_size`, resize the shorter side and crop the centre."""
    try:
        with Image.open(file) as opened:
            mode, size = opened.mode, opened.size
            if mode in _TOO_DEEP:
                raise UserError(f"{file} has 32-bit pixels (mode {mode}): convert it to 8-bit grey or RGB")
            image = _eight_bit(opened).convert("RGB")
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise UserError(f"{file} cannot be decoded ({error}): replace or remove it") from error
    if image_size is not None:
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
    return Decoded(np.asarray(image), mode in _GREY, size)


def _eight_bit(image: Image.Image) -> Image.Image:
    """PIL clips 16-bit greys at 255 where it should scale them, so scale them here."""
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _decoded(files: list[Path], image_size: int | None) -> Iterator[Decoded]:
    """Every file decoded, in order."""
    workers = (os.cpu_count() or 1) if len(files) >= _POOL_FROM else 1
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    progress = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    pool = Parallel(n_jobs=workers, return_as="generator")
    try:
        with progress:
            task = progress.add_task("decoding", total=len(files))
            for images in pool(delayed(_decode_chunk)(chunk, image_size) for chunk in chunks):
                yield from images
                progress.advance(task, len(images))
    finally:
        if workers > 1:
            get_reusable_executor().shutdown(kill_workers=True)


def _decode_chunk(files: list[Path], image_size: int | None) -> list[Decoded]:
    return [decode(file, image_size) for file in files]


def _check_size(
    file: Path, size: tuple[int, int], first: Path, expected: tuple[int, int], image_size: int | None
) -> None:
    """Without an image_size, refuse what is not square or not of the first file's size (width, height)."""
    if image_size is not None:
        return
    if size != expected:
        raise UserError(
            f"{file} is {size[0]}x{size[1]} but {first} is {expected[0]}x{expected[1]}: set "
            "image_size in the dataset entry to resize them all"
        )
    if size[0] != size[1]:
        raise UserError(
            f"{file} is {size[0]}x{size[1]}, not square: set image_size in the dataset entry "
            "to resize and crop all images"
        )
