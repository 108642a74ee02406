"""Image files decoded to one uint8 array.

Imports no torch, so that decoding processes start in a fraction of a second.
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
# Files from which a pool of processes is used; fewer are decoded before it has started. Not threads: on small
# images two threads were slower than one (275 against 230 microseconds for a 32x32 JPEG), because they share
# the interpreter lock.
_POOL_FROM = 4000
_GREY = {"1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N"}
_TOO_DEEP = {"I", "F"}  # 32 bits per pixel: the value of white is not known


class Decoded(NamedTuple):
    """A decoded image file."""

    pixels: npt.NDArray[np.uint8]  # [H,W,3]
    grey: bool  # the file has no colours
    size: tuple[int, int]  # (width, height) of the file


def decode_all(files: list[Path], image_size: int | None) -> npt.NDArray[np.uint8]:
    """Decode image files; shows a progress bar if stderr is a terminal.

    Args:
        files: at least one.
        image_size: S, to which images are resized and cropped; None requires equal, square images.

    Returns:
        uint8 [N,1,S,S] if every image is grey, else RGB [N,3,S,S].

    Raises:
        UserError: names a file that cannot be decoded or has another size.
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
    """Decode one file as 8-bit RGB.

    Args:
        file: the image file.
        image_size: to which its shorter side is resized and its centre cropped; None leaves it as it is.

    Raises:
        UserError: for a file that cannot be decoded.
    """
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
    """Scale 16-bit greys to 8 bits; PIL would clip them at 255."""
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _decoded(files: list[Path], image_size: int | None) -> Iterator[Decoded]:
    """Decode the files, in order."""
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
    """Without an image_size, refuse an image that is not square or not of the first file's size."""
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
